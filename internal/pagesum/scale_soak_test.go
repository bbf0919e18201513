//go:build soak

package pagesum

const tableMutants = 10_000
