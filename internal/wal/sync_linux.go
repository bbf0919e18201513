package wal

import (
	"os"

	"golang.org/x/sys/unix"
)

// datasync makes the content and size of f durable.
func datasync(f *os.File) error {
	return retryInterrupted(func() error { return unix.Fdatasync(int(f.Fd())) })
}
