package publisher

import (
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/testenv"
)

func TestRetain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config()
	cfg.Retain = 2 * time.Second
	p := start(t, cfg)
	p.sync()
	for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline); {
		w.transfer(1)
		p.sync()
	}
	c := w.kept()
	if c.fulls > 4 || c.metas[0].Max == 1 {
		t.Fatalf("%d full files, the first is %s, %d files are dropped", c.fulls, c.metas[0].Max, c.skipped)
	}
	w.node.Stop() // no more full files while they cannot be published
	p.until("the outage", func(s Status) bool { w.transfer(1); return s.Error != "" })
	n, at := p.Status().Capture.Comparisons, time.Now() // one may have been captured already
	p.until("two periods", func(s Status) bool { return time.Since(at) > 2*time.Second })
	if m := p.Status().Capture.Comparisons; m > n+1 {
		t.Fatalf("%d full files were captured in an outage", m-n)
	}
	w.restart()
	p.sync()
	w.kept()
}

// kept is check where messages are dropped for their age: on a slow machine the
// base may be among them for a moment, until there is the next one.
func (w *world) kept() (c *chain) {
	w.t.Helper()
	testenv.Until(w.t, patience, "a full file to begin with, and the rest", func() error {
		c = w.read()
		return w.compare(c)
	})
	return c
}

// TestRetainWhileNobodyWrites: an idle publisher refreshes its base.
func TestRetainWhileNobodyWrites(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config()
	cfg.Retain = 2 * time.Second
	p := start(t, cfg)
	w.transfer(1)
	n := p.sync().TXID
	p.until("two more full files", func(s Status) bool { return s.Acked >= n+2 })
	if c := w.kept(); c.fulls < 1 {
		t.Fatalf("%d full files", c.fulls)
	}
}
