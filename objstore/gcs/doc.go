// Package gcs keeps objects in a bucket of Google Cloud Storage, over its JSON
// API: gs://bucket/prefix.
//
// Invariants, beside those of [objstore.Store]: a call is one request, but for
// a Put that is longer than Config.ChunkSize, a listing of more than a thousand
// objects, and an answer 404 whose text does not say whether the object or the
// bucket is missing (one more request asks). Only the pieces of a long Put are
// tried again here, each for half a minute at most; all else is left to
// [objstore.Retry].
//
// # URL
//
//	gs://bucket/prefix[?endpoint=https://host]
//
// The bucket must exist. The endpoint is for private access points and for
// emulators; with one of plain http, credentials are neither looked up nor sent.
//
// # Credentials
//
// Application Default Credentials: the file that GOOGLE_APPLICATION_CREDENTIALS
// names (a service account, workload identity, impersonation), else that of
// `gcloud auth application-default login`, else the service account of the
// machine. A token of the scope devstorage.read_write is asked for. The
// identity needs on the bucket
//
//	storage.objects.get, storage.objects.list   to read
//	storage.objects.create                      to write
//	storage.objects.delete                      to delete, and to replace an object
//
// that is roles/storage.objectViewer to restore, roles/storage.objectUser to
// archive. Nothing is asked of the bucket itself. Without storage.objects.list
// the service answers 403 for an object that is missing.
//
// # Environment
//
// STORAGE_EMULATOR_HOST (host:port or a URL) is the endpoint where none is
// given, and switches credentials off. HTTPS_PROXY and NO_PROXY are heeded.
//
// # Layout
//
// An object's name is prefix/key. PutOptions.Timestamp is its user metadata
// "litestream-timestamp" (RFC 3339 in milliseconds, UTC; any RFC 3339 is read,
// what is none counts as no timestamp), and name of PutOptions.Meta is
// "ltxstream-name". Listings tell the timestamp.
//
// # Limits
//
// The prefix is at most 323 characters. The API removes one object per request:
// Delete sends 16 at a time. What a Put that was broken off has uploaded is
// never visible and costs nothing; the service drops it within a week. On a
// bucket with object versioning or soft delete, what was replaced or deleted is
// kept, and billed, as the bucket says; a retention policy or a hold makes
// Delete, and Put over an object, fail with fs.ErrPermission. Requester-pays
// buckets and customer-supplied encryption keys are not supported (a default
// KMS key of the bucket is). Objects stored with Content-Encoding gzip, which
// ltxstream never does, are not read by range.
package gcs
