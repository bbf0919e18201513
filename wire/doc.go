// Package wire owns the names and header fields of the replication stream:
// the database-name rule, the subjects, the headers of data messages and
// claims, and how a large LTX file is cut into parts.
//
// Invariants: a name that parses is one NATS token, so a subject built from
// it never contains a wildcard. Every parser accepts only the canonical form,
// the one that its Header method writes: what parses, prints the same. A
// header that is not ours, or is damaged, is a [*HeaderError].
//
// The package is pure: it does no I/O, knows no connection, and never looks
// at the bytes of an LTX file.
package wire
