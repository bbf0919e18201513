package capture

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ltxstream/ltxstream/internal/atomicfile"
	"github.com/ltxstream/ltxstream/internal/dirlock"
)

// ErrLocked is returned when another process captures the same database.
var ErrLocked = errors.New("state directory is in use by another process")

// state is what outlives the process beside the table and the spool: the lock,
// the writer's id and the cursor.
type state struct {
	dir    string
	lock   *dirlock.Lock
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
	if s.lock, err = dirlock.Take(s.dir); err != nil {
		if held, ok := errors.AsType[*dirlock.HeldError](err); ok {
			err = fmt.Errorf("%w (pid %d)", ErrLocked, held.PID)
		}
		return err
	}
	if s.writer, err = loadWriter(filepath.Join(s.dir, "writer")); err != nil {
		return err
	}
	s.cursor, err = openCursor(filepath.Join(s.dir, "cursor"))
	return err
}

func (s *state) close() error {
	return errors.Join(s.cursor.close(), s.lock.Release())
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
	return id, atomicfile.Write(path, []byte(id+"\n"))
}
