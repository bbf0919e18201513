// Package archiver owns the way from the stream to cold storage: it collects
// the level-0 files of each database, writes them to level 1 of one archive or
// several every few seconds, keeps each archive in order with package compactor,
// and trims the stream behind all of them.
//
// Invariants: what an archive has is the only truth about how far it is: it is
// read when a lane begins, and files are put whole, read back, and only then
// recorded as done and the stream trimmed; so every step may be repeated, by this
// process or another one. Each destination of each database is a lane of its
// own: one that is slow or away holds up no other, but holds up trimming. One
// process at a time writes a destination, by a lease; the lease is a hint that
// saves work, correctness does not rest on it. A break in the stream's chain is
// never papered over: the archive goes on behind a snapshot of the new base, and
// the points in between are not promised.
//
// It applies nothing and restores nothing.
package archiver
