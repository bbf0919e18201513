// Package natsobj owns the backend on a NATS JetStream object store: LTX files
// as objects that the nats command and Litestream read. (Its directory is
// called nats; the name of the package would clash with that of the client.)
//
// It speaks to the bucket's stream directly. The format is the object store's
// own: 128 KiB chunks, a meta message per object, SHA-256. Added to it are
// things that other readers do not see: a number in the header of each chunk,
// the chunks' places in the object's metadata ("ltx-chunks"), and an index of
// names in the chunks' half of the subjects. DESIGN.md says why.
//
// Invariants: a meta is published when all chunks are acknowledged, under a
// compare-and-set on its subject. What is read back is what the stream's leader
// acknowledged, on three replicas too. Reading writes nothing. A listing costs
// what its level costs, not what the bucket does or what was deleted. Deleting
// leaves nothing, not even a mark.
//
// # URL
//
//	nats://bucket/prefix?replicas=3&create=true
//
// Both parameters are for a bucket that is not there yet: create lets Put make
// it, with so many replicas (1). Servers, credentials and the JetStream domain
// belong to the connection in Config.JS, which the caller opens and closes; no
// environment variable is read here. Open the connection with
// nats.ReconnectBufSize(-1). A bucket is created by hand with
//
//	nats object add archive --replicas 3
//
// An age limit (ttl) on a bucket removes archive files without a word: set none.
//
// # Permissions
//
// For the bucket archive, without a domain ($JS.hub.API in place of $JS.API for
// the domain hub):
//
//	all       subscribe  _INBOX.>  (or the connection's own inbox prefix)
//	readers   publish    $JS.API.STREAM.INFO.OBJ_archive
//	                     $JS.API.STREAM.MSG.GET.OBJ_archive
//	                     $JS.API.DIRECT.GET.OBJ_archive
//	writers   publish    those, and $O.archive.>
//	                     $JS.API.STREAM.PURGE.OBJ_archive
//	creators  publish    those, and $JS.API.STREAM.CREATE.OBJ_archive
//
// Nobody needs consumers. Without permission a call fails as soon as the server
// has said so.
//
// # Requests
//
// Put of a new object: one for each chunk and one for the meta; over another
// object three more. The first Put of a store and every 128th bring the index up
// to date besides: one message for each object put since, at most 1,024, and a
// few requests. Stat: 1. Get: 1 and one for each chunk that the range touches.
// List: 3, and one for each further 500 objects; a few more after others wrote.
// Delete: 4 for each object, and 1 or 2.
//
// # Limits
//
// A listing holds all names of its prefix in memory, about 150 bytes each. Until
// somebody puts something with this package into a bucket that others filled,
// the first listing of every process reads the metas of the whole bucket.
// Ranges of objects that others put, whose chunks may be of any size, are found
// by reading what precedes them, once in the life of a store. Links are not
// followed. A process that is killed in a Put or Delete leaves chunks behind:
// call [Store.Sweep] now and then.
package natsobj
