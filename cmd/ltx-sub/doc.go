// Command ltx-sub owns the command line of subscribing: it turns flags, the
// environment and a file into subscribers, a connection, and the endpoints that
// show what they do. One replica that cannot go on leaves the others at work.
//
// It does no work of its own on replicas or streams; see package subscriber.
package main
