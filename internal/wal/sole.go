package wal

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Lock bytes of a database file (os.h): PENDING, RESERVED and the SHARED range.
const (
	fileLockStart = 0x40000000
	fileLockLen   = 2 + 510
)

// FileLock is SQLite's EXCLUSIVE lock on a database file.
type FileLock struct {
	f  *os.File
	id FileID
}

// LockFile locks the database file at path against every SQLite connection that
// has read from it and every one that wants to, as SQLite's EXCLUSIVE lock
// does. ErrBusy: a connection, of this process or another, has the file open in
// WAL mode or is inside a transaction.
func LockFile(path string) (*FileLock, error) {
	f, id, err := acquire(path)
	if err != nil {
		return nil, fmt.Errorf("lock database: %w", err)
	}
	l := &FileLock{f: f, id: id}
	if err := l.set(unix.F_WRLCK); err != nil {
		release(f, id)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			err = ErrBusy
		}
		return nil, fmt.Errorf("lock database: %w", err)
	}
	return l, nil
}

func (l *FileLock) set(typ int16) error {
	fl := unix.Flock_t{Type: typ, Whence: io.SeekStart, Start: fileLockStart, Len: fileLockLen}
	return unix.FcntlFlock(l.f.Fd(), ofdSetLock, &fl)
}

// Unlock lets go.
func (l *FileLock) Unlock() error {
	err := l.set(unix.F_UNLCK)
	release(l.f, l.id)
	return err
}

// abandonedSize is what is left of an abandoned file: a page of any size, for
// SQLite removes the WAL beside a database of no pages.
const abandonedSize = 65536

// Abandon keeps the lock on a file that another one was put in the place of, until
// this process ends, and gives its disk space back. A connection that had opened
// the file and not read it yet would otherwise read it with the WAL of the new one,
// which it finds by its name.
func (l *FileLock) Abandon() error {
	fi, err := l.f.Stat()
	if err == nil && fi.Size() > abandonedSize {
		err = l.f.Truncate(abandonedSize)
	}
	return err
}
