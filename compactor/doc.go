// Package compactor owns what happens to LTX files in an archive after they
// were written: merging the files of one level into fewer of the next, building
// snapshots from what is there, and deciding what is not needed any more.
//
// Invariants: every merged file was verified whole while it was merged (its
// checksum, page index, position in the chain), so that damage is found and
// never passed on; compressed pages are copied as they are; memory does not grow
// with the database; what is merged, snapshotted or deleted follows from pure
// functions over lists of files ([Pick], [Keep]); nothing is deleted but what a
// snapshot covers that was read back.
//
// It never reads a primary or a stream, and does not run by itself: the
// archiver says when.
package compactor
