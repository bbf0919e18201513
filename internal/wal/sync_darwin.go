package wal

import "os"

// datasync makes the content and size of f durable.
func datasync(f *os.File) error { return retryInterrupted(f.Sync) }
