// Package control owns the conversation between running publishers and
// subscribers and the commands that ask them something, over NATS: status,
// sync and wait. On the answering side it is a micro service of nats.go, so
// that the nats tool's "micro" commands show it.
//
//	ltxstream.pub.status              every database of every ltx-pub
//	ltxstream.pub.<db>.status         one database
//	ltxstream.pub.<db>.sync           until all committed before is acknowledged
//	ltxstream.sub.status              every replica of every ltx-sub
//	ltxstream.sub.<db>.status         all replicas of one database
//	ltxstream.sub.<db>.wait           until each of them applied a TXID
//	ltxstream.sub.<db>.<id>.status    one replica
//	ltxstream.sub.<db>.<id>.wait
//
// Invariants:
//   - no queue groups: everybody who serves a subject answers, under an id of
//     its own (header Ltx-Id), and the asker collects until nobody new answers;
//   - "Ltx-State: more" on an answer promises another one of that id: work that
//     takes time is accepted at once and answered when it is done;
//   - a handler never blocks the connection: work runs in goroutines that
//     Close waits for, as many as MaxRunning, each with the asker's deadline;
//   - an asker never waits longer than it said.
//
// It does not replicate, and nothing that replicates depends on it: a user who
// may not use these subjects loses this conversation only.
package control
