package capture

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ltxstream/ltxstream/internal/wal"
	"github.com/superfly/ltx"
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
	cursor *os.File
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
	if err := errors.Join(s.lock.Truncate(0), writeAt(s.lock, fmt.Appendf(nil, "%d\n", os.Getpid()))); err != nil {
		return err
	}
	if s.writer, err = loadWriter(filepath.Join(s.dir, "writer")); err != nil {
		return err
	}
	s.cursor, err = os.OpenFile(filepath.Join(s.dir, "cursor"), os.O_RDWR|os.O_CREATE, 0o644)
	return err
}

func writeAt(f *os.File, b []byte) error {
	_, err := f.WriteAt(b, 0)
	return err
}

func (s *state) close() error {
	var errs []error
	for _, f := range []*os.File{s.cursor, s.lock} {
		if f != nil {
			errs = append(errs, f.Close())
		}
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

// A place is a position in the WAL and the transaction that it stands for.
type place struct {
	salt  wal.Salt
	frame uint32
	txid  ltx.TXID
}

const cursorSize = 24

// saveCursor records a place that no LTX file records: that of a generation
// from which nothing has been captured yet. Not synced.
func (s *state) saveCursor(p place) error {
	var b [cursorSize]byte
	le := binary.LittleEndian
	le.PutUint32(b[0:], p.salt[0])
	le.PutUint32(b[4:], p.salt[1])
	le.PutUint32(b[8:], p.frame)
	le.PutUint64(b[12:], uint64(p.txid))
	le.PutUint32(b[20:], crc32.ChecksumIEEE(b[:20]))
	if err := writeAt(s.cursor, b[:]); err != nil {
		return fmt.Errorf("write cursor: %w", err)
	}
	return nil
}

// loadCursor returns the recorded place; ok is false where none is readable.
func (s *state) loadCursor() (p place, ok bool) {
	var b [cursorSize]byte
	if _, err := s.cursor.ReadAt(b[:], 0); err != nil {
		return place{}, false
	}
	le := binary.LittleEndian
	if le.Uint32(b[20:]) != crc32.ChecksumIEEE(b[:20]) {
		return place{}, false
	}
	return place{
		salt:  wal.Salt{le.Uint32(b[0:]), le.Uint32(b[4:])},
		frame: le.Uint32(b[8:]),
		txid:  ltx.TXID(le.Uint64(b[12:])),
	}, true
}

// placeOf returns the place that an LTX file's header records.
func placeOf(f File) place {
	h := f.Header
	return place{
		salt:  wal.Salt{h.WALSalt1, h.WALSalt2},
		frame: wal.FramesIn(h.WALOffset+h.WALSize, h.PageSize),
		txid:  h.MaxTXID,
	}
}
