// Command ltx-pub owns the command line of publishing: it turns flags, the
// environment and a file into publishers, a connection (or a nats-server in
// this process), and the endpoints that show what they do. One publisher that
// cannot go on leaves the others at work.
//
// It does no work of its own on databases or streams; see package publisher.
package main
