// Package capture owns the live primary: it turns what any process commits to a
// SQLite database into level-0 LTX files in a spool, in order and without a gap.
//
// Invariants:
//
//   - The application is never blocked beyond 50 ms, and nothing is sent while a
//     SQLite lock is held. DESIGN.md, Force, has the one exception.
//   - A frame leaves the WAL only after it was captured; where that cannot be
//     proven, the whole database is compared with the page checksum table and
//     what differs is captured.
//   - An LTX file is in the spool before the checksum table describes it, and
//     the table before any later file exists: after a kill at any byte, the
//     spool's last file and the table tell where to go on.
//
// It does not know NATS, does not decide what a stream holds, and never writes
// to the database other than by SQLite's own checkpoint protocol. DESIGN.md in
// this folder tells how and why.
package capture
