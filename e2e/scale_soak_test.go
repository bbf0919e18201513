//go:build soak

package e2e

import "time"

const (
	readerChecks = 1_000_000
	readerPause  = 300 * time.Microsecond // without one, eight readers leave two cores nothing for the rest
	holdSpan     = 60 * time.Second
	randomSeeds  = 200
	randomWork   = 400
	killRounds   = 1_000
	followRounds = 300
	stepSeeds    = 1_000
	mutants      = 10_000

	long                   = true
	virtualRounds          = 500
	largeTransaction       = 1 << 30
	checkpointedWrites     = 20000
	killedCheckpointers    = 1000
	killedWriters          = 500
	longRead               = 3 * time.Minute
	gapsPerShard           = 432
	fullSteps              = 60
	hour                   = time.Hour
	hourSpool              = 1 << 30
	powerLosses            = 1_000
	firstWriterCheckpoints = 20_000
	saturatedCheckpoints   = 2_000
)
