package capture

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrLocked is returned when another process captures the same database.
var ErrLocked = errors.New("state directory is in use by another process")

// state is what outlives the process beside the table and the spool: the lock,
// the writer's id and the cursor.
type state struct {
	dir    string
	lock   *os.File
	writer string
	cursor cursor
}

func openState(dir string) (*state, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("open state directory: %w", err)
	}
	s := &state{dir: dir}
	if err := s.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("open state directory %s: %w", dir, err), s.close())
	}
	return s, nil
}

func (s *state) open() (err error) {
	if s.lock, err = os.OpenFile(filepath.Join(s.dir, "lock"), os.O_RDWR|os.O_CREATE, 0o644); err != nil {
		return err
	}
	if err := unix.Flock(int(s.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		holder, _ := io.ReadAll(io.LimitReader(s.lock, 32))
		return fmt.Errorf("%w (pid %s)", ErrLocked, strings.TrimSpace(string(holder)))
	}
	if err := s.lock.Truncate(0); err != nil {
		return err
	}
	if _, err := s.lock.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0); err != nil {
		return err
	}
	if s.writer, err = loadWriter(filepath.Join(s.dir, "writer")); err != nil {
		return err
	}
	s.cursor, err = openCursor(filepath.Join(s.dir, "cursor"))
	return err
}

func (s *state) close() error {
	errs := []error{s.cursor.close()}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}

// loadWriter reads the random id of this state directory, or draws it.
func loadWriter(path string) (string, error) {
	b, err := os.ReadFile(path)
	if id := strings.TrimSpace(string(b)); err == nil && len(id) == 16 {
		return id, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	var raw [8]byte
	rand.Read(raw[:])
	id := hex.EncodeToString(raw[:])
	if err := os.WriteFile(path+tempSuffix, []byte(id+"\n"), 0o644); err != nil {
		return "", err
	}
	return id, os.Rename(path+tempSuffix, path)
}
