package capture

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/wal"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

// open opens a capture and runs it without a consumer.
func open(t *testing.T, cfg Config) *Capture {
	t.Helper()
	cfg.Logger = quiet(t)
	c, err := Open(t.Context(), cfg)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = c.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		must(t, c.Close())
	})
	return c
}

// With a full spool the application goes on, its checkpoints succeed, the alarm
// shows; when files are acknowledged a delta follows.
func TestSpoolFull(t *testing.T) {
	a := newApp(t, patientApp, 1)
	c := open(t, Config{Path: a.path, SpoolLimit: 20 << 10})
	f, err := c.Next(t.Context(), 0)
	must(t, err, c.Acked(f.TXID()))
	at := f.TXID()
	await(t, "the alarm", func() bool { // nothing is acknowledged
		a.update(5)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if f, err := c.Next(ctx, at); err == nil {
			at = f.TXID()
		}
		s := c.Stats()
		return s.SpoolFull && s.Error != ""
	})
	for range 5 {
		a.update(20)
		a.truncate()
	}
	if _, b := c.spool.usage(); b > 20<<10+1<<20 {
		t.Errorf("spool holds %d bytes", b)
	}
	must(t, c.Acked(at))
	s := &shadow{}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { follow(ctx, t, c, s) })
	r := &running{t: t, c: c, shadow: s, stop: func() {}}
	r.settle()
	r.equal(a.path)
	cancel()
	wg.Wait()
	await(t, "the alarm to end", func() bool { s := c.Stats(); return !s.SpoolFull && s.Error == "" })
	if s.fulls != 1 {
		t.Errorf("%d full files", s.fulls)
	}
}

// A disk that takes no more bytes stops the capture, not the application.
func TestDiskFull(t *testing.T) {
	a := newApp(t, patientApp, 1)
	c := captureIn(t, captureSpec{Path: a.path, MaxFileSize: 200 << 10})
	c.caughtUp()
	a.exec("INSERT INTO a(v) VALUES (randomblob(400000))") // one file larger than that
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := c.r.WaitFor(ctx, c.p, func(r captureReport) (bool, error) {
		return strings.Contains(r.Stats.Error, "file too large"), nil
	}); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		start := time.Now()
		a.update(20)
		if took := time.Since(start); took > stuck {
			t.Errorf("20 transactions took %s", took)
		}
		a.truncate()
	}
	c.p.Kill()
	r := run(t, Config{Path: a.path}, &shadow{})
	r.settle()
	r.equal(a.path)
	if r.shadow.fulls != 1 {
		t.Errorf("%d full files", r.shadow.fulls)
	}
}

func TestPerTransaction(t *testing.T) {
	a := newApp(t, sqlconn.Options{}, 1)
	r := run(t, Config{Path: a.path, PerTransaction: true, SoftWALLimit: 256 << 10}, &shadow{})
	r.settle()
	const n = 700
	a.update(n)
	r.settle()
	r.equal(a.path)
	if r.shadow.files != n+1 {
		t.Errorf("%d files for %d transactions", r.shadow.files-1, n)
	}
}

// What was committed before a Sync began is in the file that it names, whatever
// else is committed meanwhile.
func TestSyncUnderLoad(t *testing.T) {
	a := newApp(t, sqlconn.Options{}, 1)
	a.exec("CREATE TABLE n (x INTEGER)")
	a.exec("INSERT INTO n VALUES (0)")
	r := run(t, Config{Path: a.path}, &shadow{})
	load := write(t, writerSpec{Path: a.path, Seed: 3, Statements: 1 << 30, Pause: 2 * time.Millisecond})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // a capture that cannot keep up takes for ever
	defer cancel()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				if _, err := r.c.Sync(ctx); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 20 {
		before := r.c.Pos()
		a.exec("UPDATE n SET x = x + 1")
		pos, err := r.c.Sync(ctx)
		must(t, err)
		if pos.TXID <= before.TXID {
			t.Errorf("sync returned %s, it was at %s before the transaction", pos, before)
		}
	}
	wg.Wait()
	load.Kill()
	r.settle()
	r.equal(a.path)
}

func TestContextsEnd(t *testing.T) {
	a := newApp(t, sqlconn.Options{}, 1)
	c := open(t, Config{Path: a.path})
	f, err := c.Next(t.Context(), 0)
	must(t, err)
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("reason")
	done := make(chan error)
	go func() { _, err := c.Next(ctx, f.TXID()); done <- err }()
	cancel(reason)
	if err := <-done; !errors.Is(err, reason) {
		t.Error(err)
	}
	if _, err := c.Sync(ctx); err != nil && !errors.Is(err, reason) {
		t.Error(err)
	}
}

// Any number may wait for the same file.
func TestEveryWaiterGetsTheFile(t *testing.T) {
	a := newApp(t, sqlconn.Options{}, 1)
	c := open(t, Config{Path: a.path})
	f, err := c.Next(t.Context(), 0)
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if g, err := c.Next(ctx, f.TXID()); err != nil || g.TXID() != f.TXID()+1 {
				t.Errorf("%v, %v", g.TXID(), err)
			}
		})
	}
	a.update(1)
	wg.Wait()
}

// Full asked for during a comparison is not forgotten.
func TestFullDuringComparison(t *testing.T) {
	a := newApp(t, sqlconn.Options{}, 1)
	cfg := Config{Path: a.path, Logger: quiet(t)}
	c, err := Open(t.Context(), cfg)
	must(t, err)
	defer c.Close()
	must(t, c.pin(t.Context()))
	asked := false
	c.cfg.Crash = func(label string) {
		if label == "compare" && !asked && !c.Pos().IsZero() {
			asked = true
			c.Full()
		}
	}
	for range 3 {
		_, err = c.step(t.Context(), true)
		must(t, err)
	}
	c.unsure = true // a comparison that finds nothing
	for range 3 {
		_, err = c.step(t.Context(), true)
		must(t, err)
	}
	if f, _ := c.spool.last(); !asked || !f.Full || f.TXID() != 2 {
		t.Errorf("asked %t, the last file is %v, full %t", asked, f.TXID(), f.Full)
	}
}

func TestSecondCaptureIsRefused(t *testing.T) {
	a := newApp(t, sqlconn.Options{}, 1)
	open(t, Config{Path: a.path})
	if _, err := Open(t.Context(), Config{Path: a.path, SoleOwner: true}); !errors.Is(err, ErrLocked) {
		t.Errorf("%v, want ErrLocked", err)
	}
	// The first one's locks must have survived: another process sees them.
	out, err := exec.CommandContext(t.Context(), "python3", "-c", `
import sqlite3, sys
sqlite3.connect(sys.argv[1], timeout=0).execute("PRAGMA journal_mode=delete")`, a.path).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "locked") {
		t.Errorf("another process took the database out of WAL mode: %v %s", err, out)
	}
}

func TestAdoptAndReseed(t *testing.T) {
	a := newApp(t, sqlconn.Options{}, 1)
	r := run(t, Config{Path: a.path, PerTransaction: true}, &shadow{}) // holds the pin all the time
	pos := r.settle()
	r.stop()
	must(t, os.RemoveAll(StateDir(a.path)))
	c, err := Open(t.Context(), Config{Path: a.path, Logger: quiet(t)})
	must(t, err)
	if err := c.Adopt(t.Context(), End{Pos: ltx.Pos{TXID: 9, PostApplyChecksum: ltx.ChecksumFlag | 1}}); !errors.Is(err, ErrDiverged) {
		t.Errorf("%v, want ErrDiverged", err)
	}
	if c.db.Pinned() || a.checkpoint("TRUNCATE").Busy {
		t.Error("pinned, and nobody there to yield")
	}
	must(t, c.Adopt(t.Context(), End{Pos: pos}), c.Close())
	a.update(7)
	r = run(t, Config{Path: a.path}, r.shadow)
	r.settle()
	r.equal(a.path)
	if r.shadow.fulls != 1 {
		t.Errorf("%d full files", r.shadow.fulls)
	}
	r.stop()
	c, err = Open(t.Context(), Config{Path: a.path, Logger: quiet(t)})
	must(t, err, c.Reseed(ltx.Pos{}, End{}), c.Close())
}

func FuzzPlace(f *testing.F) {
	var b [placeSize]byte
	place{txid: 7, frame: 3}.encode(&b)
	f.Add(b[:])
	f.Fuzz(func(t *testing.T, in []byte) {
		p, ok := parsePlace(in)
		if !ok {
			return
		}
		var out [placeSize]byte
		p.encode(&out)
		if q, ok := parsePlace(out[:]); !ok || q != p {
			t.Errorf("%+v became %+v", p, q)
		}
	})
}

func FuzzSpoolFile(f *testing.F) {
	f.Add([]byte("LTX1"))
	f.Fuzz(func(t *testing.T, in []byte) {
		dir := t.TempDir()
		name := dir + "/" + ltx.TXID(1).String() + fileSuffix
		must(t, os.WriteFile(name, in, 0o644))
		s, err := openSpool(dir)
		must(t, err)
		if got, ok := s.last(); ok && got.Size != int64(len(in)) {
			t.Errorf("took a file of %d bytes as %d", len(in), got.Size)
		}
	})
}

func FuzzSegment(f *testing.F) {
	f.Add([]byte(recordMagic + "\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x04LTX1"))
	f.Fuzz(func(t *testing.T, in []byte) {
		dir := t.TempDir()
		must(t, os.WriteFile(dir+"/"+ltx.TXID(1).String()+segmentSuffix, in, 0o644))
		s, err := openSpool(dir)
		must(t, err)
		for at := ltx.TXID(0); ; {
			got, ok := s.after(at)
			if !ok {
				return
			}
			if at != 0 && got.TXID() != at+1 || got.off+got.Size > int64(len(in)) {
				t.Errorf("took %s at %d of %d bytes behind %s", got.TXID(), got.off, len(in), at)
			}
			at = got.TXID()
		}
	})
}

// TestOutrun: a comparison in place of reading what is unread pays off only where it
// reads less than that. It begins at the first frame of the WAL, which a reader may
// have kept there for hours.
func TestOutrun(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20 / 4096 // frames, nearly
	for name, tc := range map[string]struct {
		read, unread, pages uint32
		want                bool
	}{
		"nothing unread":           {100 * mib, 0, 10, false},
		"little unread":            {0, 20 * mib, 10, false},
		"all unread":               {0, 40 * mib, 10, true},
		"of a large database":      {0, 40 * mib, 30 * mib, false},
		"behind as much":           {50 * mib, 60 * mib, 10, true},
		"behind what was read":     {100 * mib, 60 * mib, 10, false},
		"after many a comparison":  {10_000 * mib, 60 * mib, 10, false},
		"of a database and behind": {20 * mib, 60 * mib, 30 * mib, false},
	} {
		c := Capture{cfg: Config{SoftWALLimit: 128 << 10}}
		salt := wal.Salt{1}
		c.held.begin(wal.Chain{PageSize: 4096, Salt: salt, Frame: tc.read})
		h := wal.Header{PageSize: 4096, Salt: salt, MaxFrame: tc.read + tc.unread, PageCount: tc.pages}
		if got := c.outrun(h); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
