// Package testenv owns what tests need around them: real nats-servers and clusters, other processes on the same SQLite files,
// workloads, the oracle that compares two databases, and TCP faults, all bound to the life of a test.
//
// This package is the thin layer with *testing.T; the sub-packages do the work and serve programs too (demo, benchmarks):
//
//	natsserver  servers and clusters, in process or in child processes that can be killed
//	child       this executable again as another process
//	foreign     readers, writers, checkpointers and probes in other processes, go-sqlite3 and python
//	bank        the workload with an invariant that one SELECT can judge
//	app         a plain application that writes bank transfers at a rate
//	workload    seeded random SQL
//	oracle      whether two files hold the same database
//	faults      a TCP proxy that misbehaves
//	oldltx      LTX files in the form that superfly/ltx does not write any more
//	sqlconn     opening SQLite with every setting said
//	pace        rates and precise sleeps
//
// Invariants: everything a helper starts has ended when the test has, also when the test binary is killed; only processes
// started here are ended; all sockets are on 127.0.0.1. A package that uses it calls Main from its TestMain, which
// also fails the package for leaked goroutines.
//
// It knows no role: nothing of the product is imported.
package testenv
