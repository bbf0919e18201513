// Package ltxstream owns nothing but the name of the module: plain SQLite on
// both ends, NATS JetStream in between. The packages to begin with are
// publisher, subscriber and embedded; their order of imports is held by the
// test of this package.
package ltxstream
