// Package workload owns random SQL: seeded transactions that reach the corners of SQLite's file format.
//
// Tables with and without rowid, indexes, columns added, tables dropped, blobs from nothing to many overflow pages, one row
// written many times, mass deletes that leave free pages, growth into them, savepoints and transactions rolled back, VACUUM,
// incremental_vacuum, checkpoints of every mode, user_version. The same seed on a database of its own makes the same statements.
//
// The workload has the database to itself as far as its own tables (t1, t2, …) go; other writers may be active beside it.
// A statement that meets SQLITE_BUSY after the handle's busy timeout is counted and left out.
package workload
