// Package ltxfile owns the bytes of LTX files as they are stored: page frames
// that are walked and copied without being encoded again, the page index at a
// file's end, and the arithmetic of its checksum (github.com/superfly/ltx,
// version 3), in both forms that a page has there.
//
// Invariants: what a [Scanner] or [ReadIndex] hands out lies inside the bounds
// that the header allows; a file that a [Writer] finished is what the encoder
// of superfly/ltx would have written from the same compressed pages.
//
// It opens no files, knows no positions of a database, and decodes a page only
// where it is told to.
package ltxfile
