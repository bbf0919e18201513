// Command ltx-demo shows live replication on one machine: embedded NATS, an
// application that writes bank transfers in a process of its own, a publisher, a
// live replica, and a foreign process that reads it all the time.
//
// It is no part of the product.
package main
