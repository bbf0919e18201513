// Package generations owns the way back from the archives of Litestream 0.3:
// their names, which objects lead to a point, and how snapshots and WAL segments
// become a database again.
//
// A generation is one unbroken history: a snapshot is the whole database file, and
// the WALs that SQLite wrote since are numbered by their index and cut into
// segments; all are LZ4 frames. An object has no other time than that of the
// storage ([objstore.Info].Modified).
//
// Invariants: which objects are needed follows from a pure function ([Find]) over
// a listing; a point that cannot be reached is an error, and what is missing is
// named, never another point; only whole transactions of WALs whose checksums
// hold from the first frame on are written to the database; nothing has the
// output's name before all of it is there, synced and checked.
//
// It writes nothing into an archive, opens no SQLite, and does not read LTX files.
package generations
