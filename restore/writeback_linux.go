package restore

import (
	"os"

	"golang.org/x/sys/unix"
)

// startWriteback begins to write a range of a file to disk, and does not wait: so
// that the sync at the end finds little to do. It is a hint and cannot fail.
func startWriteback(f *os.File, offset, size int64) {
	_ = unix.SyncFileRange(int(f.Fd()), offset, size, unix.SYNC_FILE_RANGE_WRITE)
}
