// Package dir keeps objects as files of a local directory, or of a mounted one.
//
// URL: file:///var/backups/ltx, or a path alone. Parameter:
//
//   - create=true makes the directory, and those above it, when it is missing.
//
// Without it a missing directory is an error that says so, never an empty
// store: it may be a disk that is not mounted. Put alone makes the last element
// of the path, once; a directory that was there and has gone is not made again.
//
// The key is the path of the file below the directory, the timestamp its
// modification time, in milliseconds. Other metadata lies in hidden files beside
// it. A file appears whole, synced, by a rename or, where the object must not
// exist, by a second link (where the file system has none: under a claim file).
// Directories appear as needed and go when they are empty.
//
// The process needs to read, write and search the directory; reading alone
// suffices to restore. Modes of new files are left to the umask.
//
// Limits: an object cannot lie below another one (a/b beside a/b/c); segments of
// keys have at most 200 bytes; symbolic links below the directory are neither
// listed nor read. A file system that does not fold case is needed where keys
// differ by case alone, and one that keeps milliseconds (not vfat) for exact
// timestamps. Calls into a network file system that hangs cannot be interrupted.
package dir
