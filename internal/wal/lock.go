package wal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Lock is one of the lock bytes of the -shm file (walformat.html section 2.3.2).
type Lock int

// The lock bytes.
const (
	Write   Lock = 0
	Ckpt    Lock = 1
	Recover Lock = 2
	read0   Lock = 3
	dms     Lock = 8

	lockCount = 8
	lockBase  = 120
)

// Read returns the lock of read mark i, 0 ≤ i < Readers.
func Read(i int) Lock { return read0 + Lock(i) }

func (l Lock) String() string {
	switch {
	case l == Write:
		return "WRITE"
	case l == Ckpt:
		return "CKPT"
	case l == Recover:
		return "RECOVER"
	case l == dms:
		return "DMS"
	default:
		return fmt.Sprintf("READ%d", l-read0)
	}
}

// ErrBusy is returned when a lock is held by somebody else.
var ErrBusy = errors.New("lock is held by another connection")

type lockState int8

const (
	unlocked lockState = iota
	shared
	exclusive
)

// locks takes the lock bytes of one -shm file as open-file-description locks:
// they conflict with those of every process, and with those of this process's
// own SQLite connections, which are POSIX locks. One descriptor cannot conflict
// with itself, so what it holds is kept here too, and goroutines that share a
// DB exclude each other as two connections would.
type locks struct {
	f  *os.File
	mu struct {
		sync.Mutex
		held [lockCount]lockState
	}
}

func (k *locks) set(first Lock, n int, s lockState) error {
	typ := [...]int16{unlocked: unix.F_UNLCK, shared: unix.F_RDLCK, exclusive: unix.F_WRLCK}[s]
	fl := unix.Flock_t{Type: typ, Whence: io.SeekStart, Start: lockBase + int64(first), Len: int64(n)}
	err := unix.FcntlFlock(k.f.Fd(), ofdSetLock, &fl)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return ErrBusy
	}
	if err != nil {
		return fmt.Errorf("lock %v of %s: %w", first, k.f.Name(), err)
	}
	return nil
}

// try takes l in state s from unlocked. ErrBusy: somebody else holds it.
func (k *locks) try(l Lock, s lockState) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.mu.held[l] != unlocked {
		return ErrBusy
	}
	if err := k.set(l, 1, s); err != nil {
		return err
	}
	k.mu.held[l] = s
	return nil
}

// downgrade turns an exclusive lock into a shared one without letting go.
func (k *locks) downgrade(l Lock) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.set(l, 1, shared); err != nil {
		return err
	}
	k.mu.held[l] = shared
	return nil
}

// unlock lets go of l. Letting go of what is not held is no error.
func (k *locks) unlock(l Lock) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.mu.held[l] == unlocked {
		return nil
	}
	k.mu.held[l] = unlocked
	return k.set(l, 1, unlocked)
}

// unlockAll drops whatever is held.
func (k *locks) unlockAll() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.mu.held = [lockCount]lockState{}
	return k.set(0, lockCount, unlocked)
}

func (k *locks) holds(l Lock) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.mu.held[l] != unlocked
}

// takeReaders takes READ1–READ4 exclusively at once, the pin of this
// descriptor (at slot pin, 0: none) included, and returns how to go back.
func (k *locks) takeReaders(pin int) (back func() error, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := 1; i < Readers; i++ {
		if i != pin && k.mu.held[Read(i)] != unlocked {
			return nil, ErrBusy
		}
	}
	if err := k.set(Read(1), Readers-1, exclusive); err != nil {
		return nil, err
	}
	for i := 1; i < Readers; i++ {
		k.mu.held[Read(i)] = exclusive
	}
	return func() error { return k.giveReaders(pin) }, nil
}

func (k *locks) giveReaders(pin int) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var errs []error
	for i := 1; i < Readers; i++ {
		s := unlocked
		if i == pin {
			s = shared
		}
		k.mu.held[Read(i)] = s
		errs = append(errs, k.set(Read(i), 1, s))
	}
	return errors.Join(errs...)
}

// Holder tells who holds a lock byte in a way that conflicts with an exclusive
// lock of ours. PID is 0 where the system does not say (a lock of an open file
// description, such as those of this package).
type Holder struct {
	Held bool
	PID  int
}

// Holder asks who, other than d itself, holds l.
func (d *DB) Holder(l Lock) (Holder, error) {
	fl := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: lockBase + int64(l), Len: 1}
	if err := unix.FcntlFlock(d.locks.f.Fd(), ofdGetLock, &fl); err != nil {
		return Holder{}, fmt.Errorf("ask for %v of %s: %w", l, d.path, err)
	}
	return Holder{Held: fl.Type != unix.F_UNLCK, PID: max(0, int(fl.Pid))}, nil
}

// Alone reports whether no other process has the database open: each of its
// connections holds DMS shared, as a POSIX lock, of which those of this process do
// not count here. (/proc/locks would tell too, but reading it stops every process
// of the machine at its next lock until all processors have passed a quiet state.)
func (d *DB) Alone() (bool, error) {
	fl := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: lockBase + int64(dms), Len: 1}
	if err := unix.FcntlFlock(d.locks.f.Fd(), unix.F_GETLK, &fl); err != nil {
		return false, fmt.Errorf("ask for %v of %s: %w", dms, d.path, err)
	}
	return fl.Type == unix.F_UNLCK, nil
}

// TryLock takes l exclusively, or returns ErrBusy at once.
func (d *DB) TryLock(l Lock) error { return d.locks.try(l, exclusive) }

// LockWithin takes l exclusively, trying again and again until wait is over,
// then returns ErrBusy. A cancelled context ends the wait with its cause.
func (d *DB) LockWithin(ctx context.Context, l Lock, wait time.Duration) error {
	deadline := time.Now().Add(wait)
	for n := 0; ; n++ {
		if err := d.TryLock(l); !errors.Is(err, ErrBusy) {
			return err
		}
		if time.Now().After(deadline) {
			return ErrBusy
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if n < 200 {
			runtime.Gosched()
		} else {
			time.Sleep(50 * time.Microsecond)
		}
	}
}

// Unlock lets go of l. Letting go of what is not held is no error.
func (d *DB) Unlock(l Lock) error { return d.locks.unlock(l) }
