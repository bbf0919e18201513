//go:build !soak

package pagesum

// How much the tests do. The long forms are in the file beside this one.
const tableMutants = 2_000
