// Package stream owns the JetStream stream that carries level-0 LTX files:
// it creates it, holds its settings against what replication needs, reads its
// head, and finds the sequence of a TXID.
//
// Invariants: an existing stream is never altered. Heads and messages are
// read from the stream's leader, never by direct get, so what was
// acknowledged is seen. This is the one place that knows NATS error codes
// (Classify).
//
// It does not publish, does not consume, and knows neither SQLite nor the
// bytes of an LTX file.
package stream
