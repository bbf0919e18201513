// Package publisher owns the way of one database's LTX files from capture to
// JetStream: who may publish, in which order, and what happens when an
// acknowledgement is lost.
//
// Invariants:
//
//   - One message is in flight, and each expects the last sequence on the
//     database's subjects: whatever anybody else stores there makes the server
//     refuse ours, with nothing of ours behind it.
//   - Nothing is published before this publisher has claimed the database, and
//     it claims only what its own database provably continues.
//   - An answer that did not come is never guessed: the head of the stream,
//     read from its leader, decides.
//   - A file leaves the spool only after it was acknowledged.
//
// It does not read databases (package capture does) and creates a stream only
// where there is none.
package publisher
