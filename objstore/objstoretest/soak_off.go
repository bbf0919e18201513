//go:build !soak

package objstoretest

const soaking = false
