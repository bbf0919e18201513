// Package tempfile owns files without a name, in which something waits that must
// leave nothing behind.
//
// Invariant: a name is there for a moment only; a file that lost it is gone when it
// is closed, and when the process ends in whatever way.
//
// It does not sweep names that a kill in that moment left: who chose the pattern
// does, where it matters.
package tempfile
