package subscriber

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ltxstream/ltxstream/internal/atomicfile"
	"github.com/ltxstream/ltxstream/internal/dirlock"
	"github.com/ltxstream/ltxstream/replica"
	"github.com/ltxstream/ltxstream/wire"
)

// ErrLocked says that another process, or another Run, holds the replica.
var ErrLocked = replica.ErrLocked

// state is the subscriber's part of the state directory.
type state struct {
	dir      string
	lock     *dirlock.Lock
	consumer string // name of our durable consumer
	writer   string // who wrote the file at the replica's position
}

// openState locks the directory, after making it when absent.
func openState(dir string) (*state, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	s := &state{dir: dir}
	if err := s.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("open state directory %s: %w", dir, err), s.close())
	}
	return s, nil
}

func (s *state) open() (err error) {
	if s.lock, err = dirlock.Take(s.dir); err != nil {
		if _, ok := errors.AsType[*dirlock.HeldError](err); ok {
			err = fmt.Errorf("%w: a subscriber runs already: %w", ErrLocked, err)
		}
		return err
	}
	if s.consumer, err = s.load("consumer"); err != nil {
		return err
	}
	if s.consumer == "" {
		s.consumer = "sub-" + rand.Text()[:16]
		if err := s.save("consumer", s.consumer); err != nil {
			return err
		}
	}
	s.writer, err = s.load("writer")
	return err
}

// spool is the directory for files too large for memory.
func (s *state) spool() (string, error) {
	dir := filepath.Join(s.dir, "spool")
	return dir, os.MkdirAll(dir, 0o755)
}

// noteWriter keeps the writer of the newest applied file; it seldom changes.
func (s *state) noteWriter(writer string) error {
	if writer == s.writer {
		return nil
	}
	s.writer = writer
	return s.save("writer", writer)
}

// load reads a token; "" when the file is absent or damaged.
func (s *state) load(name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(s.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	token, err := wire.ParseDB(strings.TrimSpace(string(b))) // same rule as for names
	if err != nil {
		return "", nil
	}
	return string(token), nil
}

func (s *state) save(name, value string) error {
	return atomicfile.Write(filepath.Join(s.dir, name), []byte(value+"\n"))
}

// close lets go of the lock; the file stays, so that its lock means one thing.
func (s *state) close() error { return s.lock.Release() }
