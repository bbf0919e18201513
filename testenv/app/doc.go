// Package app owns a plain application: a process of somebody else's that writes bank transfers into a SQLite file with
// go-sqlite3, at a rate or as fast as it can, and says how that went.
//
// It knows nothing of replication. The demo and the benchmarks attach a publisher to the file it writes.
package app
