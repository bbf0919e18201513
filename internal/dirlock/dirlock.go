package dirlock

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Lock is a directory that is ours.
type Lock struct{ f *os.File }

// HeldError says that another process, or another Take in this one, has the
// directory.
type HeldError struct{ PID int } // 0: not known

func (e *HeldError) Error() string {
	if e.PID == 0 {
		return "in use by another process"
	}
	return fmt.Sprintf("in use by process %d", e.PID)
}

// Take locks an existing directory, without waiting. Errors are a [*HeldError] or
// those of the file system.
func Take(dir string) (*Lock, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		err = &HeldError{PID: holder(f)}
	case err != nil:
		err = &os.PathError{Op: "flock", Path: f.Name(), Err: err}
	default:
		err = sign(f)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &Lock{f: f}, nil
}

// Release frees the directory. A nil Lock has none.
func (l *Lock) Release() error {
	if l == nil {
		return nil
	}
	return l.f.Close()
}

func sign(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	return err
}

func holder(f *os.File) int {
	b, _ := io.ReadAll(io.LimitReader(f, 32))
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return pid
}
