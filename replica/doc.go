// Package replica owns one replica file: a SQLite database that this process
// keeps at a position of the primary's history by applying LTX files, and that
// every other process reads live with plain SQLite.
//
// Invariants:
//
//   - An LTX file is applied whole or not at all, as one SQLite transaction:
//     readers go from one state of the primary to a later one.
//   - Nothing is written before the file was verified whole: its checksum, its
//     place behind the position, and the rolling checksum after it.
//   - The WAL's WRITE lock is held from Open to Close: a stray writer gets
//     SQLITE_BUSY. Readers are never blocked.
//   - The position journal knows the position of a commit before its last frame
//     is written; so whatever survives a crash, the position is known or the
//     content is compared.
//   - A position is reported only for content that has it.
//
// It does not fetch LTX files and knows nothing of NATS, streams or archives.
package replica
