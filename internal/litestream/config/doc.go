// Package config owns the translation of a Litestream configuration (0.3 and 0.5)
// into the configurations of ltx-pub and ltx-archive.
//
// Invariants: every key of the input is either taken over or named in a note with
// what becomes of it, the unknown ones too; no secret is in what comes out, but the
// environment variable that is to hold it; variables stay variables.
//
// It contacts no storage. Of a directory of databases it lists the files.
package config
