package subscriber

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

// ErrLocked: another process feeds the same replica.
var ErrLocked = errors.New("state directory is in use by another process")

// state is what outlives the process beside the replica's own files.
type state struct {
	dir  string
	lock *os.File
	id   string // random, names the durable consumer

	// lastWriter is whose files the replica's content came from.
	lastWriter string
}

func openState(dir string) (*state, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("open state directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open state directory: %w", err)
	}
	s := &state{dir: dir, lock: lock}
	if err := s.take(); err != nil {
		return nil, errors.Join(fmt.Errorf("open state directory %s: %w", dir, err), lock.Close())
	}
	return s, nil
}

func (s *state) take() error {
	if err := unix.Flock(int(s.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		pid, _ := io.ReadAll(io.LimitReader(s.lock, 32)) // for people
		return fmt.Errorf("%w (pid %s)", ErrLocked, strings.TrimSpace(string(pid)))
	}
	if err := s.lock.Truncate(0); err != nil {
		return err
	}
	if _, err := s.lock.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0); err != nil {
		return err
	}
	s.id, s.lastWriter = s.read("id"), s.read("writer")
	if len(s.id) == 16 {
		return nil
	}
	var raw [8]byte
	rand.Read(raw[:]) // never fails
	s.id = hex.EncodeToString(raw[:])
	return s.write("id", s.id)
}

func (s *state) close() error { return s.lock.Close() }

// read returns the one line of a file, "" when there is none.
func (s *state) read(name string) string {
	b, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func (s *state) write(name, line string) error {
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path+".tmp", []byte(line+"\n"), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

func (s *state) setWriter(id string) error {
	if err := s.write("writer", id); err != nil {
		return err
	}
	s.lastWriter = id
	return nil
}

// spool returns the directory of files too large for memory.
func (s *state) spool() (string, error) {
	dir := filepath.Join(s.dir, "spool")
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	return dir, nil
}
