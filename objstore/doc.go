// Package objstore is the port to places that keep bytes under keys: a
// directory, a NATS object store, S3, Google Cloud Storage, Azure, SFTP.
//
// Invariants, the same in every backend: an object becomes visible whole or
// not at all; once Put has returned nil it is durable, and every later Get,
// Stat and List of any process sees it; a listing is in byte order of the
// keys. The packages below hold one backend each and import only their own
// SDK; [objstoretest] is the suite that all of them pass.
//
// It does not know what the objects are: keys of LTX files, their levels and
// ranges belong to objstore/levels.
//
// [objstoretest]: https://pkg.go.dev/github.com/ltxstream/ltxstream/objstore/objstoretest
package objstore
