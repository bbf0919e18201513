// Package feed owns the way from JetStream to gap-free LTX files of one
// database: it consumes the stream, joins the parts, drops what was sent
// twice or is not ours, and hands out one verified file after another.
//
// Invariants: a file is handed out only when it is whole (parts in order,
// size, file checksum, header equal to the message headers) and continues the
// position handed out before, or is a full file beyond it. A break of the
// chain is a [*GapError] or a [*ForkError], never a silent jump. The caller's
// position is the truth: the consumer's own state is reset to it on every
// connect, and its acknowledgements are only for people who look at it.
//
// It writes nothing but its spool, applies nothing, and knows no SQLite.
package feed
