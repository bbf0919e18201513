// Package subscriber owns the life of one replica: it feeds the LTX files of a
// stream into the replica file, gets a base where there is none, seeds the
// replica anew in place where the chain broke, and says how far behind it is.
//
// Invariants: one process subscribes a replica at a time (a lock in its state
// directory). The replica's position journal alone says where to go on. Errors
// that pass are waited out; what does not pass ends Run. A replica is never
// moved back by a gap, only by a history that was replaced.
//
// It reads no archive: a Bootstrapper may. It writes no page itself; package
// replica does.
package subscriber
