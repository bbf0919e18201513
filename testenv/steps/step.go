package steps

import "errors"

// ErrUnsupported is in the chain of Offer's error where the system cannot stop
// a process before a step.
var ErrUnsupported = errors.New("the system does not watch processes")

// Calls of a Step.
const (
	Write    = "write"
	Sync     = "sync"
	Rename   = "rename"
	Remove   = "remove"
	Truncate = "truncate"
	Create   = "create" // or open what was created
	Listen   = "listen"
)

// Step is what a process is about to do.
type Step struct {
	Call   string
	Path   string // of the file, for Rename its new one; a socket's begins with "socket:"
	Data   []byte // the first of the bytes to Write, up to 4 KiB
	Offset int64  // of a Write at a place of its own
}
