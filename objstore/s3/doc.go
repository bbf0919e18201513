// Package s3 is the objstore backend for S3 and what speaks its protocol.
//
// Its URL is
//
//	s3://BUCKET[/PREFIX][?endpoint=URL&region=R&path-style=true|false&part-size=N|NMiB]
//
// endpoint is the server's URL where it is not AWS; then region is us-east-1
// and path-style true unless given. Everything else comes from the environment
// and the files of the AWS SDK: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
// AWS_SESSION_TOKEN, AWS_PROFILE, AWS_REGION, AWS_ENDPOINT_URL_S3, the roles of
// EC2, ECS and web identities. A server that does not know S3's newer checksums
// wants AWS_REQUEST_CHECKSUM_CALCULATION=when_required.
//
// The credentials need s3:GetObject, s3:PutObject, s3:DeleteObject and
// s3:AbortMultipartUpload on the objects below the prefix, and s3:ListBucket on
// the bucket: without that one S3 says "denied" of every object that is missing.
//
// Invariants:
//
//   - A key is the object's name behind the prefix. The timestamp is the user
//     metadata litestream-timestamp, as Litestream writes it (RFC 3339, UTC);
//     PutOptions.Meta has names that begin with "ltx-".
//   - Only S3's own NoSuchKey is fs.ErrNotExist, never a bare 404.
//   - Each call is one request as a rule: a Put of up to Config.PartSize, a Get,
//     a Stat, 1000 objects of a List or Delete. There are more for a larger Put
//     (2 and one for each part), for a Stat of what is missing (2), for a Get
//     behind the end of the object (2).
//   - The SDK tries nothing again; [objstore.Retry] does.
//
// Known limits: the timestamps do not come with a listing. A conditional write
// (PutOptions.IfAbsent) needs a server that knows If-None-Match on PutObject
// and CompleteMultipartUpload: one that ignores it overwrites. Directory
// buckets (S3 Express) list in no order and are refused. A process that is
// killed during a large Put leaves an unfinished upload, which costs money and
// cannot be seen: give the bucket a lifecycle rule with
// AbortIncompleteMultipartUpload.
//
// [objstore.Retry]: https://pkg.go.dev/github.com/ltxstream/ltxstream/objstore#Retry
package s3
