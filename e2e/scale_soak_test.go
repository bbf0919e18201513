//go:build soak

package e2e

import "time"

const (
	readerChecks = 1_000_000
	readerPause  = time.Duration(0)
	holdSpan     = 60 * time.Second
	randomSeeds  = 200
	randomWork   = 400
	killRounds   = 1_000
	mutants      = 10_000
)
