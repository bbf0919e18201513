// Package archive owns how a replica begins, or goes on, from an archive: it
// makes of the archive's files the one LTX file that a subscriber asks for,
// where a stream does not reach back far enough ([Bootstrapper]), or without
// any stream, file after file ([Follower]).
//
// Invariants: an LTX file without database checksums, as Litestream's are, is
// taken for the next one only while something else proves that the archive has
// the history that the position is of; else the whole database is. A replica
// goes back only to a history that replaced its own.
//
// It writes that file, which has no name, and a note of where a position came
// from; never the archive.
package archive
