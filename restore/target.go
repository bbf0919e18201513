package restore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Reasons why an output is refused.
var (
	ErrOutputExists = errors.New("it exists")
	ErrOutputDir    = errors.New("it is not a regular file")
	ErrOutputInUse  = errors.New("a process has the database open")
	ErrNoDir        = errors.New("its directory does not exist")
)

// CheckOutput refuses a path that a restore must not write: a directory or
// another special file; a database that some process has open; unless force is
// set, any file, and a journal or WAL that an older database of that name left:
// SQLite would apply it to the new one.
func CheckOutput(path string, force bool) error {
	dir := filepath.Dir(path)
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return fmt.Errorf("output %s: %w", path, errors.Join(ErrNoDir, err))
	}
	st, err := os.Stat(path)
	switch {
	case err == nil && !st.Mode().IsRegular():
		return fmt.Errorf("output %s: %w", path, ErrOutputDir)
	case err == nil && !force:
		return fmt.Errorf("output %s: %w", path, ErrOutputExists)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("output %s: %w", path, err)
	}
	for _, suffix := range sideFiles {
		if _, err := os.Stat(path + suffix); err == nil && !force {
			return fmt.Errorf("output %s: %w (of an older database)", path+suffix, ErrOutputExists)
		}
	}
	for _, lock := range []lockRange{{path, pendingByte, 512}, {path + "-shm", 120, 9}} {
		held, err := lock.held()
		if err != nil {
			return fmt.Errorf("output %s: %w", path, err)
		}
		if held {
			return fmt.Errorf("output %s: %w", path, ErrOutputInUse)
		}
	}
	return nil
}

// lockRange is where SQLite's locks lie: in the database from PENDING_BYTE on
// (os.h of SQLite), in the -shm file its nine lock bytes (walformat).
type lockRange struct {
	path       string
	start, len int64
}

const pendingByte = 0x40000000

// held asks whether any process has a lock in the range. (A connection of this
// process would not show, and would lose its locks; there is none.)
func (l lockRange) held() (bool, error) {
	f, err := os.OpenFile(l.path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	k := unix.Flock_t{Type: unix.F_WRLCK, Whence: 0, Start: l.start, Len: l.len}
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &k); err != nil {
		return false, err
	}
	return k.Type != unix.F_UNLCK, nil
}
