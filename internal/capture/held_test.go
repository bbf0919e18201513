package capture

import (
	"os"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

// stepped is a capture that looks at the database only when it is told to.
type stepped struct {
	*running
	a *app
}

func newStepped(t *testing.T) *stepped {
	t.Helper()
	a := newApp(t, sqlconn.Options{AutoCheckpoint: -1}, 1)
	c, err := Open(t.Context(), Config{Path: a.path, Logger: quiet(t)})
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })
	c.timing.tryCkpt = time.Now().Add(time.Hour) // only the application backfills
	s := &stepped{&running{t: t, c: c, shadow: &shadow{}}, a}
	s.capture() // the first full file, under the pin
	s.capture() // … which is let go
	return s
}

// capture makes the capture look until it has everything.
func (s *stepped) capture() {
	s.t.Helper()
	await(s.t, "a capture", func() bool {
		covered, err := s.c.step(s.t.Context(), true)
		must(s.t, err)
		return covered
	})
	for {
		f, ok := s.c.spool.after(s.shadow.pos.TXID)
		if !ok {
			return
		}
		must(s.t, s.shadow.apply(f))
	}
}

// look makes the capture look once, without making a file.
func (s *stepped) look() {
	s.t.Helper()
	_, err := s.c.step(s.t.Context(), false)
	must(s.t, err)
}

// restart has the application restart the WAL: all of it is backfilled, and n more
// transactions are written.
func (s *stepped) restart(n int) {
	s.t.Helper()
	if r := s.a.checkpoint("PASSIVE"); r.Busy {
		s.t.Fatalf("%+v", r)
	}
	s.a.update(n)
}

// ends checks how often it came to a comparison, beside the first one.
func (s *stepped) ends(comparisons uint64) {
	s.t.Helper()
	s.capture()
	s.equal(s.a.path)
	if got := s.c.Stats().Comparisons - 1; got != comparisons {
		s.t.Errorf("%d comparisons, want %d", got, comparisons)
	}
	if s.shadow.fulls != 1 {
		s.t.Errorf("%d full files", s.shadow.fulls)
	}
}

// Once frames were read, the WAL may be restarted, and nobody waits for a file to
// be made of them.
func TestHeldWhileTheWALIsRestarted(t *testing.T) {
	s := newStepped(t)
	for range 4 {
		s.a.update(20)
		s.look()
		if s.c.db.Pinned() || s.c.held.empty() {
			t.Fatalf("pinned %t, held %d bytes", s.c.db.Pinned(), s.c.held.size())
		}
		s.restart(1)
		s.look()
	}
	if n := len(s.c.held.batches); n < 4 {
		t.Errorf("%d batches of 5 generations", n)
	}
	s.ends(0)
}

// What was not read when the WAL was restarted is found behind the new frames.
func TestTailOfARestartedWAL(t *testing.T) {
	s := newStepped(t)
	s.a.update(30)
	s.look()
	s.a.update(10)
	s.restart(3)
	s.ends(0)
	if c, n := s.c.Stats().Commits, uint64(43); c != n {
		t.Errorf("%d commits captured, want %d", c, n)
	}
}

// Where the new frames have reached it, the database is compared, and the pin is
// held for a time.
func TestWALRestartedBeforeItWasRead(t *testing.T) {
	s := newStepped(t)
	s.a.update(5)
	s.look()
	s.a.update(10)
	s.restart(200)
	s.ends(1)
	if care := s.c.care; !care.wantsPin(care.since) {
		t.Errorf("the pin was not wanted: %+v", care)
	}
	s.awaitUnpinned()
}

func (s *stepped) awaitUnpinned() {
	s.t.Helper()
	await(s.t, "the pin to be let go", func() bool { s.look(); return !s.c.db.Pinned() })
}

// A generation that came and went between two looks is missed by the count.
func TestWALRestartedTwice(t *testing.T) {
	s := newStepped(t)
	s.a.update(30)
	s.look()
	s.a.update(10)
	s.restart(5)
	s.restart(3)
	s.ends(1)
}

func TestTailDamaged(t *testing.T) {
	s := newStepped(t)
	s.a.update(30)
	s.look()
	at := s.c.held.chain.Frame
	s.a.update(10)
	s.restart(3)
	f, err := os.OpenFile(s.a.path+"-wal", os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	_, err = f.WriteAt([]byte("damage"), int64(at+4)*int64(s.c.held.chain.FrameSize()))
	must(t, err)
	s.ends(1)
}

func TestTailTruncated(t *testing.T) {
	s := newStepped(t)
	s.a.update(30)
	s.look()
	s.a.update(10)
	s.a.checkpoint("TRUNCATE")
	s.ends(1)
	s.awaitUnpinned()
	s.a.update(10)
	s.look()
	s.a.checkpoint("TRUNCATE") // all was read
	s.ends(1)
}

// More than can be held stays in the WAL, pinned, until it is captured.
func TestMoreThanCanBeHeld(t *testing.T) {
	a := newApp(t, sqlconn.Options{}, 1)
	r := run(t, Config{Path: a.path}, &shadow{})
	r.settle()
	for range 3 {
		a.exec("INSERT INTO a(v) VALUES (randomblob(20000000))")
		a.update(3)
	}
	r.settle()
	r.equal(a.path)
	if n := r.c.Stats().Comparisons; n > 1 {
		t.Errorf("%d comparisons", n)
	}
}

func TestCareGrowsAndIsForgotten(t *testing.T) {
	var c care
	now := time.Now()
	for _, want := range []time.Duration{2, 4, 8, 16, 32, 64, 64} {
		c.overtaken(now, time.Second)
		if got := c.until.Sub(now); got != want*time.Second {
			t.Errorf("careful for %s, want %s", got, want*time.Second)
		}
		now = c.until
	}
	c.overtaken(now.Add(forgetAfter+time.Hour), time.Second)
	if c.factor != minCareful {
		t.Errorf("factor %d after a quiet hour", c.factor)
	}
	if !c.wantsPin(c.since) || c.wantsPin(c.until) {
		t.Error("wantsPin does not follow until")
	}
}
