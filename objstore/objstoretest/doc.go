// Package objstoretest is the acceptance suite of objstore backends. [Run] holds
// a backend to the contract of [objstore.Store] against a real server, counts
// its requests, and [RunFaults] puts faults under it.
package objstoretest
