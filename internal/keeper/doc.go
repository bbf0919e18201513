// Package keeper owns the one SQLite connection that this process keeps on a
// database for as long as it captures from it or applies to it.
//
// The connection does three things by being open: SQLite creates, and after a
// crash recovers, the wal-index; its DMS lock keeps other processes from
// truncating the index; and its SHARED lock on the database file keeps the last
// close of the application from deleting the WAL. It holds no transaction, and
// after Open it runs nothing and remembers nothing of the database: there may be
// thousands of keepers in a process.
//
// It does not read or write the WAL itself; see package wal.
package keeper
