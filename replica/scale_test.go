//go:build !soak

package replica

// How much the tests do. The long forms are in the file beside this one.
const (
	crashSeeds     = 20
	journalMutants = 60
)
