// Package daemon owns what every command's process shares: signals, exit
// codes, the command line and its configuration file, the log, printed tables,
// the running of several roles, and the HTTP server for health, readiness,
// metrics and status.
//
// Invariants:
//   - the first SIGINT or SIGTERM ends the context, so that a role can flush;
//     the second ends the process at once with [ExitInterrupted];
//   - an exit code has one meaning in all commands;
//   - a configuration key that no flag has is refused, never ignored;
//   - /readyz answers 200 only when every role does.
//
// It knows no role: roles come in as [Role].
package daemon
