// Package faults owns a TCP proxy on loopback that misbehaves on demand: latency, limited bandwidth, silence, resets,
// streams cut after a number of bytes, refused connections.
//
// Faults take effect at once, on open connections too. Bytes are never altered or dropped within a connection: TCP would not
// do that either. A connection through the proxy ends on both sides together.
//
// A NATS client in front of a cluster must be told not to follow the servers' gossip (nats.IgnoreDiscoveredServers), or it goes around the proxy.
package faults
