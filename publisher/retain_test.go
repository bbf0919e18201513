package publisher

import (
	"testing"
	"time"
)

func TestRetain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config()
	cfg.Retain = time.Second
	p := start(t, cfg)
	for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline); {
		w.transfer(1)
		p.sync()
	}
	c := w.check() // fails unless there is a full file to begin with
	if c.fulls < 1 || c.fulls > 4 || c.metas[0].Max == 1 {
		t.Fatalf("%d full files, the first is %s, %d files are dropped", c.fulls, c.metas[0].Max, c.skipped)
	}
	n := p.Status().Capture.Comparisons
	w.node.Stop() // no more full files while they cannot be published
	p.until("the outage", func(s Status) bool { w.transfer(1); return s.Error != "" })
	at := time.Now()
	p.until("three periods", func(s Status) bool { return time.Since(at) > 1500*time.Millisecond })
	if m := p.Status().Capture.Comparisons; m > n+1 {
		t.Fatalf("%d full files were captured in an outage", m-n)
	}
	w.restart()
	p.sync()
	w.check()
}

// TestRetainWhileNobodyWrites: an idle publisher refreshes its base.
func TestRetainWhileNobodyWrites(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config()
	cfg.Retain = time.Second
	p := start(t, cfg)
	w.transfer(1)
	n := p.sync().TXID
	p.until("two more full files", func(s Status) bool { return s.Acked >= n+2 })
	if c := w.check(); c.fulls < 1 {
		t.Fatalf("%d full files", c.fulls)
	}
}
