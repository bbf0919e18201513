// Package restore owns the way back: it finds which files of an archive bring a
// database to a point, reads of them the pages that count, and puts them
// together.
//
// Invariants: which files are needed follows from a pure function ([Plan]) over
// a listing; a point that cannot be reached is an error that tells the nearest
// ones, never another point; nothing has the output's name before all of its
// pages are there, held against the checksum that the database had, synced, and
// checked by the caller's own check; a restore that was cut short goes on where
// it was.
//
// It reads a small [Source], so an archive fits and a stream's tail does; it
// writes nothing but the output and its temporary files, and opens no SQLite.
package restore
