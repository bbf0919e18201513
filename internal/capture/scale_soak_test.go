//go:build soak

package capture

const soak = true
