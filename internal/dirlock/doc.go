// Package dirlock owns the lock on a directory that one process at a time may use.
//
// Invariant: the kernel's lock (flock(2) on the file "lock" in it) counts, not the
// file, which stays behind: a process that ends in whatever way frees it. The file
// says who holds it, for people.
package dirlock
