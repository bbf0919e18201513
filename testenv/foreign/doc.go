// Package foreign owns what other processes do to a bank database while it is replicated: readers that judge every state
// they see, readers that hold a transaction open, those that try to write, checkpointers, writers, and probes that say when
// a transfer became visible.
//
// Each runs as a child process, in go-sqlite3 or in python's sqlite3 (another SQLite version), with the same configuration
// and the same reports as JSON lines. The first violation ends a process's work and is kept in its report.
//
// Nothing here is replication. Jobs must be among those the program gives to child.Dispatch.
package foreign
