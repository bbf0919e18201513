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
	followRounds = 6
	stepSeeds    = 20
	mutants      = 240

	long                   = false
	virtualRounds          = 5
	largeTransaction       = 48 << 20
	checkpointedWrites     = 1000
	killedCheckpointers    = 20
	killedWriters          = 8
	longRead               = 3 * time.Second
	gapsPerShard           = 8
	fullSteps              = 3
	hour                   = 8 * time.Second
	hourSpool              = 2 << 20
	powerLosses            = 10
	firstWriterCheckpoints = 60
	saturatedCheckpoints   = 6
)
