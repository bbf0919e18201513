// Package litestream owns what is to be known of a Litestream whose archive is
// continued: where the archive ends, and whether it still runs.
//
// Invariants: nothing of Litestream's is written or deleted; an archive that still
// grows, or a process that still has the database open, is an error and never
// passed over.
//
// It reads no configuration of Litestream's (see its package config) and no pages.
package litestream
