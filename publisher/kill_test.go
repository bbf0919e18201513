package publisher

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/child"
	"github.com/ltxstream/ltxstream/testenv/pace"
)

// startChild runs a publisher that can be killed.
func (w *world) startChild(perTransaction bool) *child.Process {
	w.t.Helper()
	return w.startSpec(publisherSpec{PerTransaction: perTransaction})
}

func (w *world) startSpec(spec publisherSpec) *child.Process {
	w.t.Helper()
	spec.URL, spec.Path, spec.DB, spec.SoftWALLimit = w.node.URL(), w.path, w.db, 128<<10
	p, err := child.Start("publisher", spec, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(p.Kill)
	return p
}

// TestKilledAtEachStep kills the publisher at every step that lasts: before and
// after a claim, a part and a file are stored, and before and after the spool knows.
func TestKilledAtEachStep(t *testing.T) {
	t.Parallel()
	for _, label := range []string{"claim", "claimed", "part", "part stored", "published", "acknowledged"} {
		t.Run(label, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(c *testenv.Config) { c.MaxPayload = 64 << 10 })
			for seed := range uint64(killSeeds) {
				rnd := rand.New(rand.NewPCG(seed, 6))
				nth := 1 + rnd.IntN(4)
				if strings.HasPrefix(label, "claim") {
					nth = 1 // a run claims once
				}
				p := w.startSpec(publisherSpec{Crash: label, Nth: nth})
				testenv.Until(t, patience, "the kill", func() error {
					w.transfer(1 + rnd.IntN(3))
					if rnd.IntN(10) == 0 {
						w.exec("CREATE TABLE IF NOT EXISTS big (id INTEGER PRIMARY KEY, v)")
						w.exec("INSERT OR REPLACE INTO big VALUES (1, randomblob(?))", rnd.IntN(300<<10))
					}
					if p.Err() == nil {
						return errors.New("it runs")
					}
					return nil
				})
				w.transfer(rnd.IntN(10))
			}
			last := start(t, w.config())
			last.sync()
			c := w.check()
			if c.fulls != 1 || c.replays != 0 || c.junk+c.stale != 0 || c.skipped != 0 {
				t.Fatalf("%d full files, %d replays, %d junk, %d stale", c.fulls, c.replays, c.junk, c.stale)
			}
			if want := killSeeds; label != "claim" && len(c.claims) < want {
				t.Errorf("%d claims after %d kills", len(c.claims), want)
			}
		})
	}
}

// TestKilledAtAnyMoment kills the publisher again and again while the
// application goes on: no gap, no fork, no second full file.
func TestKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	for seed := range uint64(2) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			killAtAnyMoment(t, seed)
		})
	}
}

func killAtAnyMoment(t *testing.T, seed uint64) {
	w := newWorld(t)
	rnd := rand.New(rand.NewPCG(seed, 5))
	p := w.startChild(seed%2 == 0)
	for range 6 {
		for last, more := w.lastSeq(), rnd.Uint64N(60); w.lastSeq() < last+more && p.Err() == nil; {
			w.transfer(1)
			if rnd.IntN(100) == 0 {
				w.exec("CREATE TABLE IF NOT EXISTS big (id INTEGER PRIMARY KEY, v)")
				w.exec("INSERT OR REPLACE INTO big VALUES (1, randomblob(?))", rnd.IntN(3<<20))
			}
			pace.Sleep(500 * time.Microsecond)
		}
		p.Kill()
		w.transfer(rnd.IntN(3) * 10)
		p = w.startChild(seed%2 == 0)
	}
	p.Kill()
	last := start(t, w.config())
	last.sync()
	c := w.check()
	if c.fulls != 1 || c.replays != 0 || c.junk+c.stale != 0 || c.skipped != 0 {
		t.Fatalf("%d full files, %d replays, %d junk, %d stale", c.fulls, c.replays, c.junk, c.stale)
	}
	t.Logf("%d files in %d messages, %d claims, %d unfinished", len(c.metas), c.messages, len(c.claims), c.unfinished)
}
