//go:build !soak

package publisher

// Sizes of the short forms of the tests.
const killSeeds = 20
