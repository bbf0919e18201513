// Package tail owns the newest end of a stream as files: what an archive does
// not have yet, copied into a folder that is laid out like an archive.
//
// It decides nothing about restoring, and leaves nothing in the stream.
package tail
