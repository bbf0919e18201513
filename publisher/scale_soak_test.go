//go:build soak

package publisher

// Sizes of the long forms of the tests.
const killSeeds = 1_000
