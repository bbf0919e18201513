// Package subscriber owns the way of one database from the stream to one
// replica file: it feeds the replica in order, finds a base when there is none,
// and says how far behind it is.
//
// Invariants:
//
//   - The replica's own position decides what is asked for next, never the
//     server's idea of it.
//   - A replica never goes back: after a gap only a full file beyond its
//     position is taken, after a fork only a full file of the new history.
//   - Whatever keeps it from applying shows in Status, in the metrics and in the
//     log; it then tries again for as long as it runs.
//
// It does not verify or write pages (package replica does), and does not read
// archives: a Bootstrapper does.
package subscriber
