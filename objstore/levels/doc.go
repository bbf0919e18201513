// Package levels owns the names of an archive: which key holds which range of
// transactions of which database at which level, in Litestream's layouts, and
// how files are found by TXID and by time.
//
// Invariants: a level's files are listed in TXID order; a point in time is
// never guessed: a file's timestamp is what it was stored with or what its LTX
// header says, and a file that tells neither is an error.
//
// It does not read pages and does not decide what is written, merged or
// deleted.
package levels
