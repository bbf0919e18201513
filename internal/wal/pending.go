package wal

import (
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"
)

// pendingWait is how long Open waits for a connection that is about to close.
const pendingWait = 100 * time.Millisecond

// keepPending holds the PENDING byte of the database file in shared mode. A
// connection that closes tries for EXCLUSIVE, in case it is the last one, and
// takes PENDING for that moment; whoever opens the database in it gets
// SQLITE_BUSY. EXCLUSIVE is not to be had anyway while the keeper is there, and
// with PENDING shared that is clear at once: a reader never meets the moment.
// Not getting the lock is no error.
func (d *DB) keepPending() error {
	for deadline := time.Now().Add(pendingWait); ; {
		err := d.setPending(unix.F_RDLCK)
		if !errors.Is(err, ErrBusy) {
			return err
		}
		if time.Now().After(deadline) {
			return nil
		}
		time.Sleep(50 * time.Microsecond)
	}
}

func (d *DB) setPending(typ int16) error {
	fl := unix.Flock_t{Type: typ, Whence: io.SeekStart, Start: fileLockStart, Len: 1}
	err := unix.FcntlFlock(d.db.Fd(), ofdSetLock, &fl)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return ErrBusy
	}
	if err != nil {
		return fmt.Errorf("lock database: %w", err)
	}
	return nil
}
