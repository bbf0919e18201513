package tree

import (
	"context"
	"io"
	"io/fs"
	"time"
)

// FS is a file system with slashes in its paths. Its errors wrap fs.ErrNotExist
// where the name or a directory above it is missing or that is no directory,
// fs.ErrPermission, objstore.ErrTransient, and the context's cause once that
// has ended. Mkdir gives fs.ErrExist where the name is taken, Create and Link may
// give any error then.
type FS interface {
	// Lstat does not follow a symbolic link in the last element.
	Lstat(ctx context.Context, name string) (fs.FileInfo, error)
	// ReadDir returns the entries in any order; their Info is that of Lstat.
	ReadDir(ctx context.Context, name string) ([]fs.DirEntry, error)
	// Open reads a regular file as objstore.Store.Get does; anything else is
	// fs.ErrNotExist.
	Open(ctx context.Context, name string, offset, size int64) (io.ReadCloser, error)
	// Create makes a new file; a name that is taken is an error.
	Create(ctx context.Context, name string) (File, error)
	// Rename replaces a file of the new name in one step, or fails.
	Rename(ctx context.Context, from, to string) error
	// Link gives the file a second name, which must be free, or fails.
	Link(ctx context.Context, from, to string) error
	Remove(ctx context.Context, name string) error // of a file
	Mkdir(ctx context.Context, name string) error  // durable on return
	Rmdir(ctx context.Context, name string) error  // of an empty directory
	// SyncDir makes what was renamed, linked and removed in it durable, where
	// the file system lets us.
	SyncDir(ctx context.Context, name string) error
}

// File is a file that is being written. One of Finish and Abort ends it.
type File interface {
	// Write appends p, which it does not keep. An error may show at a later call.
	Write(ctx context.Context, p []byte) error
	// Finish sets the modification time, syncs and closes.
	Finish(ctx context.Context, mtime time.Time) error
	// Abort closes. The file stays.
	Abort()
}
