// Package wal owns SQLite's write-ahead log on disk and in shared memory: the
// -wal file, the wal-index in the -shm file, and the lock bytes that guard both.
// It reads and writes them beside any SQLite process, old or new, by the same
// rules as SQLite itself.
//
// Sources: https://sqlite.org/fileformat2.html#walformat (section 4, the file),
// https://sqlite.org/walformat.html (the wal-index and the locks), and the
// comments of SQLite's wal.c and os_unix.c.
//
// Invariants:
//
//   - A descriptor of a database or -shm file is never closed while a SQLite
//     connection of this process may be open on it: POSIX would drop that
//     connection's locks with it. Descriptors live in one process-wide registry.
//   - The lock page (the one at byte 0x40000000) is never read or written.
//   - The number of pages is the commit field of the last commit frame, never
//     the size of the file.
//   - The wal-index header is written copy 1, barrier, copy 0; a reader takes
//     both and compares.
//   - Every wait for a lock has a deadline.
//
// It does not open SQLite connections, does not know of transactions IDs, LTX
// or NATS, and starts no goroutine. The database must be held open by a SQLite
// connection (see package keeper) for as long as a DB of this package is used:
// that connection creates and recovers the wal-index, and its DMS lock keeps
// others from truncating it.
package wal
