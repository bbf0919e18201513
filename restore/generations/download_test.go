package generations

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/internal/wal"
	"github.com/ltxstream/ltxstream/restore"
	"github.com/ltxstream/ltxstream/testenv"
)

// TestListedAndNotThere: the listing says one thing and each request another.
func TestListedAndNotThere(t *testing.T) {
	t.Parallel()
	m := oneChain(t, 29)
	for _, p := range m.parts {
		m.store.onGet = func(key string) error {
			if key == p.key {
				return fmt.Errorf("get %s: %w", key, fs.ErrNotExist)
			}
			return nil
		}
		if _, _, err := m.restored(t, Target{}); err == nil || !strings.Contains(err.Error(), p.key) {
			t.Errorf("%v, want an error that names %s", err, p.key)
		}
		m.checks(t, p.key, false, true)
	}
	m.store.onGet = nil
	for i, p := range m.parts { // deleted while it is checked
		var once sync.Once
		var back func()
		m.store.onGet = func(key string) error {
			if key == p.key {
				once.Do(func() { back = m.without(t, p) })
			}
			return nil
		}
		report, err := Check(t.Context(), CheckConfig{Store: m.store, DB: dbName, Whole: func(string) bool { return true }})
		if err != nil {
			t.Fatal(err)
		}
		for _, problem := range report.Problems {
			if !problem.Gap {
				t.Errorf("%s deleted meanwhile: %+v, want gaps alone", p.key, problem)
			}
		}
		if lost := p.snapshot || p.offset == 0 && i+1 < len(m.parts); lost != (len(report.Problems) > 0) {
			t.Errorf("%s deleted meanwhile: problems %v", p.key, report.Problems)
		}
		back()
	}
}

// TestRefused: what a restore does not touch, and what it leaves behind: nothing.
func TestRefused(t *testing.T) {
	t.Parallel()
	m := oneChain(t, 31)
	dir := t.TempDir()
	file := filepath.Join(dir, "there.db")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	try := func(ctx context.Context, path string, change func(*Config)) error {
		cfg := Config{Store: m.store, DB: dbName, Path: path}
		change(&cfg)
		_, err := Restore(ctx, cfg)
		return err
	}
	same := func(*Config) {}
	stop, cancel := context.WithCancelCause(t.Context())
	wrong, enough := errors.New("wrong"), errors.New("enough")
	for what, c := range map[string]struct {
		err  error
		want error
	}{
		"exists":       {try(t.Context(), file, same), restore.ErrOutputExists},
		"directory":    {try(t.Context(), dir, func(c *Config) { c.Force = true }), restore.ErrOutputDir},
		"no directory": {try(t.Context(), filepath.Join(dir, "no", "out.db"), same), restore.ErrNoDir},
		"plan refused": {try(t.Context(), filepath.Join(dir, "a.db"), func(c *Config) { c.OnPlan = func(*Plan) error { return wrong } }), wrong},
		"check fails":  {try(t.Context(), filepath.Join(dir, "b.db"), func(c *Config) { c.Check = func(context.Context, string) error { return wrong } }), wrong},
		"cancelled": {try(stop, filepath.Join(dir, "c.db"), func(c *Config) {
			c.Check = func(context.Context, string) error { cancel(enough); return nil }
		}), enough},
		"cancelled before": {try(stop, filepath.Join(dir, "c.db"), same), enough},
		"busy": {func() error {
			out, err := restore.NewOutput(filepath.Join(dir, "d.db"), true)
			if err != nil {
				return err
			}
			defer out.Close()
			return errors.Join(try(t.Context(), filepath.Join(dir, "d.db"), same), out.Discard())
		}(), restore.ErrBusy},
		"another database": {try(t.Context(), filepath.Join(dir, "e.db"), func(c *Config) { c.DB = "other" }), nil},
	} {
		if c.err == nil || c.want != nil && !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v, want %v", what, c.err, c.want)
		}
	}
	entries, err := os.ReadDir(dir)
	if b, errRead := os.ReadFile(file); err != nil || len(entries) != 1 || string(b) != "mine" {
		t.Errorf("left behind: %v, %v, %q, %v", entries, err, b, errRead)
	}
	if err := try(t.Context(), file, func(c *Config) { c.Force = true }); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(file); err != nil || !bytes.Equal(b, m.last().db) {
		t.Errorf("forced: %d bytes, %v", len(b), err)
	}
	if _, err := os.Stat(filepath.Join(dir, ".there.db.restore")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// TestFrameBuffer: frames come back in order, from the file too, as often as it is
// used.
func TestFrameBuffer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := frameBuffer{dir: dir}
	const size = 1000
	for _, n := range []int{3, 2*maxOpen/size + 7, 0, 5, maxOpen/size + 1} {
		for _, drop := range []bool{true, false} {
			for i := range n {
				frame := make([]byte, size)
				binary.LittleEndian.PutUint32(frame[500:], uint32(i))
				if err := b.add(frame); err != nil {
					t.Fatal(err)
				}
			}
			if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
				t.Fatalf("%v, %v", entries, err)
			}
			if drop {
				if err := b.reset(); err != nil {
					t.Fatal(err)
				}
				continue
			}
			next := 0
			err := b.drain(size, func(frame []byte) error {
				if got := int(binary.LittleEndian.Uint32(frame[500:])); len(frame) != size || got != next {
					return fmt.Errorf("frame %d, want %d", got, next)
				}
				next++
				return nil
			})
			if err != nil || next != n {
				t.Fatalf("%d frames, %v, want %d", next, err, n)
			}
		}
	}
	if err := b.close(); err != nil {
		t.Fatal(err)
	}
}

// TestLargeTransaction: one that does not fit into memory waits in a file, and
// leaves none.
func TestLargeTransaction(t *testing.T) {
	t.Parallel()
	m := makeUp(t, shape{seed: 37, pageSize: 65536, generations: 1, indexes: 1, segments: 1, pages: 110})
	largest := 0
	for _, p := range m.parts {
		if p.snapshot {
			continue
		}
		open := 0
		for frames := p.content[wal.FileHeaderSize:]; len(frames) > 0; frames = frames[65536+wal.FrameHeaderSize:] {
			open += 65536 + wal.FrameHeaderSize
			largest = max(largest, open)
			if binary.BigEndian.Uint32(frames[4:]) != 0 {
				open = 0
			}
		}
	}
	if largest < maxOpen+1<<20 {
		t.Fatalf("the largest transaction has %d bytes: choose another seed", largest)
	}
	m.holds(t, Target{}, m.last())
}

// TestDownload: so many requests at a time and no more, and never far ahead of what
// is read.
func TestDownload(t *testing.T) {
	t.Parallel()
	const parallelism, n = 4, 60
	s := newClocked()
	var objects []Object
	for i := range n {
		o := Object{Key: fmt.Sprintf("x/%d", i), Size: 10}
		s.put(t, o.Key, []byte(fmt.Sprintf("object %3d", i)), started)
		objects = append(objects, o)
	}
	large := Object{Key: "x/large", Size: 2*pieceSize + 5}
	body := bytes.Repeat([]byte("large"), int(large.Size)/5)
	large.Size = int64(len(body))
	s.put(t, large.Key, body, started)
	s.hold = make(chan struct{})
	f := download(t.Context(), s, append(objects, large), restore.Options{Parallelism: parallelism})
	defer f.close()
	asked := func(want int64) {
		t.Helper()
		testenv.Until(t, time.Minute, "requests", func() error {
			if got := s.gets.Load(); got != want {
				return fmt.Errorf("%d, want %d", got, want)
			}
			return nil
		})
	}
	asked(parallelism)
	close(s.hold)
	asked(2 * parallelism) // as many as may wait for the reader
	for i, o := range objects {
		asked(min(int64(2*parallelism+i), n+large.pieces()))
		b, err := io.ReadAll(&stored{fetch: f, left: o.pieces()})
		if want := fmt.Sprintf("object %3d", i); err != nil || string(b) != want {
			t.Fatalf("%q, %v, want %q", b, err, want)
		}
	}
	if b, err := io.ReadAll(&stored{fetch: f, left: large.pieces()}); err != nil || !bytes.Equal(b, body) {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	if top := s.top.Load(); top != parallelism {
		t.Errorf("%d requests at a time, want %d", top, parallelism)
	}
	if got := f.fetched.Load(); got != n*10+large.Size {
		t.Errorf("%d bytes were fetched", got)
	}
}
