// Package child owns processes that a test program starts: itself again under another role, or another program.
//
// SQLite and NATS have to be seen from other processes, which can be killed at any moment. A program calls Dispatch at the
// start of main (or TestMain) with the jobs it can do as a child; Start then runs the same executable as one of them.
//
// Invariants:
//   - A child never outlives its parent: it ends when its standard input does, however the parent died.
//   - Only processes started here are ended, by their process id.
//   - What a child prints is read without a bound on its speed: the callback must be quick.
//
// It knows no SQLite and no NATS.
package child
