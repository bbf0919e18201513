//go:build !soak

package e2e

import "time"

// How much the tests do. The long forms are in the file beside this one.
const (
	readerChecks = 10_000
	readerPause  = time.Duration(2 * time.Millisecond)
	holdSpan     = 2 * time.Second
	randomSeeds  = 6
	randomWork   = 150
	killRounds   = 10
	mutants      = 240
)
