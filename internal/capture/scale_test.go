//go:build !soak

package capture

// How much the tests do. The long forms are in the file beside this one.
const soak = false // the long forms of the tests
