package wal

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// Lock bytes of a database file (os.h): PENDING, RESERVED and the SHARED range.
const (
	fileLockStart = 0x40000000
	fileLockLen   = 2 + 510
)

// LockFile locks the database file at path against every SQLite connection that
// has read from it and every one that wants to, as SQLite's EXCLUSIVE lock
// does. ErrBusy: a connection, of this process or another, has the file open in
// WAL mode or is inside a transaction. unlock lets go.
func LockFile(path string) (unlock func() error, err error) {
	f, id, err := acquire(path)
	if err != nil {
		return nil, fmt.Errorf("lock database: %w", err)
	}
	set := func(typ int16) error {
		fl := unix.Flock_t{Type: typ, Whence: io.SeekStart, Start: fileLockStart, Len: fileLockLen}
		return unix.FcntlFlock(f.Fd(), ofdSetLock, &fl)
	}
	if err := set(unix.F_WRLCK); err != nil {
		release(f, id)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			return nil, fmt.Errorf("lock database: %w", ErrBusy)
		}
		return nil, fmt.Errorf("lock database: %w", err)
	}
	return func() error {
		err := set(unix.F_UNLCK)
		release(f, id)
		return err
	}, nil
}
