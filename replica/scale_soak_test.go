//go:build soak

package replica

const (
	crashSeeds     = 1_000
	journalMutants = 10_000
)
