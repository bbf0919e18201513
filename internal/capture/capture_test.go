package capture

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/internal/pagesum"
	"github.com/ltxstream/ltxstream/internal/wal"
	"github.com/ltxstream/ltxstream/testenv/child"
	"github.com/ltxstream/ltxstream/testenv/oracle"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
	"github.com/superfly/ltx"
)

// shadow is the simplest replica there can be: an image in memory.
type shadow struct {
	mu       sync.Mutex
	pos      ltx.Pos
	pageSize uint32
	image    []byte
	files    int
	fulls    int
	bytes    int64
}

func (s *shadow) apply(f File) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := f.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	dec := ltx.NewDecoder(io.NewSectionReader(r, 0, f.Size))
	if err := dec.DecodeHeader(); err != nil {
		return err
	}
	h := dec.Header()
	if f.TXID() != s.pos.TXID+1 || !f.Full && h.PreApplyChecksum != s.pos.PostApplyChecksum {
		return fmt.Errorf("file %s follows %s, the shadow is at %s", f.Pos(), f.PrePos(), s.pos)
	}
	if f.Full {
		s.image, s.pageSize = nil, h.PageSize
		s.fulls++
	}
	if err := s.pages(dec, h); err != nil {
		return err
	}
	if sum := s.sum(); sum != dec.Trailer().PostApplyChecksum {
		return fmt.Errorf("after %s the checksum is %s, the file says %s", f.TXID(), sum, dec.Trailer().PostApplyChecksum)
	}
	s.pos = f.Pos()
	s.files++
	s.bytes += f.Size
	return nil
}

func (s *shadow) pages(dec *ltx.Decoder, h ltx.Header) error {
	size := int(h.Commit) * int(h.PageSize)
	if len(s.image) > size {
		s.image = s.image[:size]
	}
	s.image = append(s.image, make([]byte, size-len(s.image))...)
	page := make([]byte, h.PageSize)
	for {
		var ph ltx.PageHeader
		if err := dec.DecodePage(&ph, page); errors.Is(err, io.EOF) {
			return dec.Close()
		} else if err != nil {
			return err
		}
		copy(s.image[int(ph.Pgno-1)*int(h.PageSize):], page)
	}
}

func (s *shadow) sum() ltx.Checksum {
	x := ltx.ChecksumFlag
	for i := 0; i*int(s.pageSize) < len(s.image); i++ {
		if pgno := uint32(i + 1); pgno != ltx.LockPgno(s.pageSize) {
			x = ltx.ChecksumFlag | (x ^ pagesum.Of(pgno, s.image[i*int(s.pageSize):(i+1)*int(s.pageSize)]))
		}
	}
	return x
}

// running is a capture with a shadow behind it.
type running struct {
	t      *testing.T
	c      *Capture
	shadow *shadow
	stop   func()
}

// run starts a capture of cfg.Path and feeds s. Stopped by stop, or with the test.
func run(t *testing.T, cfg Config, s *shadow) *running {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = quiet(t)
	}
	c, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := c.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	wg.Go(func() { follow(ctx, t, c, s) })
	r := &running{t: t, c: c, shadow: s}
	r.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(r.stop)
	return r
}

func follow(ctx context.Context, t *testing.T, c *Capture, s *shadow) {
	for {
		s.mu.Lock()
		after := s.pos.TXID
		s.mu.Unlock()
		f, err := c.Next(ctx, after)
		if err != nil {
			return
		}
		if err := s.apply(f); err != nil {
			t.Error(err)
			return
		}
		if err := c.Acked(f.TXID()); err != nil {
			t.Error(err)
			return
		}
	}
}

// settle waits until the shadow has all that was committed before the call.
func (r *running) settle() ltx.Pos {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	pos, err := r.c.Sync(ctx)
	if err != nil {
		r.t.Fatalf("sync: %v", err)
	}
	for {
		r.shadow.mu.Lock()
		at := r.shadow.pos
		r.shadow.mu.Unlock()
		if at.TXID >= pos.TXID {
			return pos
		}
		if ctx.Err() != nil || r.t.Failed() {
			r.t.Fatalf("shadow stays at %s, want %s", at, pos)
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func snapshotOf(t testing.TB, path string) *oracle.Snapshot {
	t.Helper()
	snap, err := oracle.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return snap
}

// openRaw opens a connection by a DSN of the driver.
func openRaw(t testing.TB, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite3", "file:"+dsn)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func openWAL(t testing.TB, path string) *wal.DB {
	t.Helper()
	w, err := wal.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// equal fails the test unless the database and the shadow hold the same bytes.
func (r *running) equal(path string) {
	r.t.Helper()
	snap := snapshotOf(r.t, path)
	defer snap.Close()
	image, err := snap.Image(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	if err := snap.Integrity(r.t.Context()); err != nil {
		r.t.Error(err)
	}
	r.shadow.mu.Lock()
	defer r.shadow.mu.Unlock()
	if len(image) != len(r.shadow.image) {
		r.t.Fatalf("database has %d bytes, shadow %d", len(image), len(r.shadow.image))
	}
	size := int(r.shadow.pageSize)
	differ := 0
	for i := 0; i < len(image); i += size {
		if !bytes.Equal(image[i:i+size], r.shadow.image[i:i+size]) {
			if differ++; differ <= 10 {
				r.t.Errorf("page %d differs", i/size+1)
			}
		}
	}
	if differ > 10 {
		r.t.Errorf("%d pages differ", differ)
	}
}

func write(t *testing.T, spec writerSpec) *child.Process {
	t.Helper()
	p, _ := writeReporting(t, spec)
	return p
}

func writeReporting(t *testing.T, spec writerSpec) (*child.Process, *child.Reports[writerReport]) {
	t.Helper()
	if spec.Options.Journal == "" {
		spec.Options.Journal, spec.Options.BusyTimeout = "wal", 10*time.Second
	}
	reports := child.NewReports(writerReport{}, nil)
	p, err := child.Start("writer", spec, reports.Line)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p, reports
}

func finish(t *testing.T, p *child.Process) {
	t.Helper()
	if err := p.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// seeded makes a database for a capture to begin with.
func seeded(t *testing.T, o sqlconn.Options) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "app.db")
	if o.Journal == "" {
		o.Journal = "wal"
	}
	o.BusyTimeout = 10 * time.Second
	finish(t, write(t, writerSpec{Path: path, Seed: 7, Statements: 30, Options: o}))
	return path
}

func TestFollowsForeignWriter(t *testing.T) {
	for seed := range uint64(short(3, 20)) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			path := seeded(t, sqlconn.Options{})
			r := run(t, Config{Path: path, SoftWALLimit: 1 << 20}, &shadow{})
			p, reports := writeReporting(t, writerSpec{Path: path, Seed: seed, Statements: short(600, 5000), Checkpoints: 40, Vacuums: 200, Reconnects: 100})
			finish(t, p)
			r.settle()
			r.equal(path)
			rep, err := reports.Last()
			if err != nil {
				t.Fatal(err)
			}
			st, _ := json.Marshal(r.c.Stats())
			t.Logf("writer %+v, files %d, fulls %d, stats %s", rep, r.shadow.files, r.shadow.fulls, st)
			if r.shadow.fulls != 1 {
				t.Errorf("%d full files, want 1", r.shadow.fulls)
			}
			if rep.Busy > 2+rep.Checkpoints/20 { // one meets us holding CKPT now and then
				t.Errorf("%d of %d checkpoints were busy", rep.Busy, rep.Checkpoints)
			}
		})
	}
}

func TestGoesOnAfterStop(t *testing.T) {
	path := seeded(t, sqlconn.Options{})
	s := &shadow{}
	for round := range 5 {
		r := run(t, Config{Path: path}, s)
		finish(t, write(t, writerSpec{Path: path, Seed: uint64(round), Statements: 100}))
		r.settle()
		r.stop()
		// while it is down
		finish(t, write(t, writerSpec{Path: path, Seed: 100 + uint64(round), Statements: 50 * round, Checkpoints: 10}))
	}
	r := run(t, Config{Path: path}, s)
	r.settle()
	r.equal(path)
	if s.fulls != 1 {
		t.Errorf("%d full files, want 1", s.fulls)
	}
}
