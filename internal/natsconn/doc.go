// Package natsconn owns the way to a NATS server: the connection flags, which
// have the names and environment variables of the nats command line tool, the
// options every connection of ours has, and the errors an operator reads when
// the way is blocked.
//
// Invariants:
//   - nothing is buffered while disconnected: a write either reached the server
//     or failed, so nothing is delivered later behind the caller's back;
//   - a connection reconnects for ever and never gives up on a refused login;
//   - what the server reports asynchronously (a denied subject above all) is
//     logged, and [Diagnose] joins it to the timeout that it shows up as;
//   - no password or token is in an error or a log line.
//
// The package creates no stream, and knows nothing of databases.
package natsconn
