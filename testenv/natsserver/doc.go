// Package natsserver owns real nats-servers for tests: in this process, or in a child process that can be killed with SIGKILL.
//
// A Server keeps its directory and its ports over Stop, Kill and Restart. Everything listens on 127.0.0.1. Nothing is logged.
//
// It is for tests and measurements: the product's own embedded server is another package.
package natsserver
