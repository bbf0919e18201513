// Package tree keeps objects as files of a directory tree: the key is the path
// below a root directory, the timestamp the file's modification time. It holds
// what the backends on file systems have in common, on top of an [FS], so that
// what one of them wrote the other reads.
//
// Invariants:
//
//   - Names that begin with a dot are ours and no objects: temporaries
//     (.tmp-...), metadata (.NAME.SIZE-SECONDS.meta) and claims (.NAME.claim).
//   - A file gets its name only when it is whole, has its time, and is synced;
//     its metadata is there before it and goes after it. Metadata belongs to the
//     object of that size and time alone, never to an older or newer one.
//   - A missing root directory is never an empty store: an unmounted disk must
//     not look like an archive without files.
//   - Directories are made as needed and removed when empty; a Put whose
//     directory is removed under it makes it again.
//
// Two processes that put one key at the same time, both with metadata, and
// objects of the same size and second, may end with the object of one and the
// metadata of the other. Within a process they take turns.
//
// It does not know local files from remote ones.
package tree
