// Package streamtest owns what the tests of the stream's users share: a
// one-node NATS server in this process, and a chain of valid LTX files over a
// made-up database that can be published as a publisher would.
//
// It is imported by tests only, and needs neither SQLite nor a role.
package streamtest
