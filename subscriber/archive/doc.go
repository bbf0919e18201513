// Package archive owns how a replica begins, or goes on, from an archive where
// the stream does not reach back far enough: it makes of the archive's files the
// one LTX file that a subscriber asks for.
//
// It writes nothing but that file, which has no name, and never the archive.
package archive
