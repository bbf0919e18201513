// Package pagesum owns the page checksum table: one 8-byte checksum per page of
// a database in a memory-mapped file, whose XOR is the rolling checksum of the
// whole (ltx.Checksum), so that the checksum after a transaction costs only its
// own pages, and the pages that differ from a known state can be found.
//
// Invariants: the header's XOR is that of the entries unless an update was cut
// short (Unfinished) or power was lost (Verify is false); a byte flipped or
// entries swapped on disk are found by Verify too; the lock page's entry is
// zero; entries beyond the page count are zero.
//
// It does not read databases, and does not sync: the table is rebuilt from the
// database when it cannot be trusted.
package pagesum
