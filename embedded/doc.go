// Package embedded owns a nats-server with JetStream inside this process.
//
// Invariants:
//   - an acknowledged publish is on disk: JetStream syncs every write before it
//     acknowledges, unless [Config.SyncInterval] chooses the lazy interval;
//   - one process per store directory, held by a lock file for as long as the
//     server runs ([ErrLocked] for everybody else), released by the kernel when
//     the process dies in whatever way;
//   - the server touches no signal handler and never ends the process;
//   - a server that stopped storing messages (full disk) is restarted once there
//     is room; connections and the listener's port live through that.
//
// The host uses [Server.Connect], which needs no socket; other processes use
// the optional listener. The package does no authentication, no TLS and no
// clustering: who needs those runs a nats-server of their own. It creates no
// stream and knows nothing of SQLite.
package embedded
