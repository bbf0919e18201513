package wire

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// DefaultStream is the name of the JetStream stream when none is given, and
// StreamSubjects what it listens to.
const (
	DefaultStream  = "LTX"
	StreamSubjects = "ltx.>"
)

// MaxNameLen is the greatest length of a database name, in bytes.
const MaxNameLen = 64

// ErrInvalidName says that a string cannot be a database's name.
var ErrInvalidName = errors.New("invalid database name")

// DB is the name of one replicated database: one NATS token of 1 to
// [MaxNameLen] characters out of A–Z, a–z, 0–9, "_" and "-". Make it with
// [ParseDB] or [DBFromPath].
type DB string

// ParseDB returns s as a name, or an error that wraps [ErrInvalidName].
func ParseDB(s string) (DB, error) {
	if !isToken(s) {
		return "", fmt.Errorf("%w %q: use 1 to %d characters of A-Z a-z 0-9 _ -", ErrInvalidName, s, MaxNameLen)
	}
	return DB(s), nil
}

// DBFromPath returns the base name of path without its extension. Where that
// is not a name, the error (it wraps [ErrInvalidName]) shows the NAME=PATH
// form to use instead.
func DBFromPath(path string) (DB, error) {
	base := filepath.Base(path)
	name := strings.TrimSuffix(base, filepath.Ext(base))
	if !isToken(name) {
		return "", fmt.Errorf("%w %q (from %q): name it yourself with NAME=%s", ErrInvalidName, name, path, path)
	}
	return DB(name), nil
}

// DataSubject is where the level-0 LTX files of the database are published.
func (db DB) DataSubject() string { return "ltx." + string(db) + ".0" }

// EpochSubject is where publishers of the database publish their claims.
func (db DB) EpochSubject() string { return "ltx." + string(db) + ".epoch" }

// Filter matches every subject of the database, and of no other.
func (db DB) Filter() string { return "ltx." + string(db) + ".>" }

func (db DB) String() string { return string(db) }

// isToken reports whether s keeps the rule of names and writer ids.
func isToken(s string) bool {
	if len(s) == 0 || len(s) > MaxNameLen {
		return false
	}
	for i := range len(s) {
		if !isTokenByte(s[i]) {
			return false
		}
	}
	return true
}

func isTokenByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-'
}
