package publisher

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ltxstream/ltxstream/testenv"
	"github.com/superfly/ltx"
)

// archive is one that somebody else wrote.
type archive struct {
	end   ltx.TXID
	err   error
	asked int
}

func (a *archive) after(context.Context) (ltx.TXID, error) {
	a.asked++
	return a.end, a.err
}

func (w *world) behind(a *archive) Config {
	cfg := w.config()
	cfg.After = a.after
	return cfg
}

// TestAfter: the numbers of an archive are taken over once.
func TestAfter(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := &archive{end: 500}
	p := start(t, w.behind(a))
	if first := p.sync(); first.TXID != 501 {
		t.Fatalf("the first file has TXID %s", first.TXID)
	}
	w.transfer(5)
	p.sync()
	p.mustStop()
	if c := w.check(); c.fulls != 1 || c.metas[0].PrePos() != ltx.NewPos(500, nothing) || !c.metas[0].Full {
		t.Fatalf("%d full files, the first is %+v", c.fulls, c.metas[0])
	}
	if a.asked != 1 {
		t.Errorf("asked %d times", a.asked)
	}
	for _, again := range []*archive{{end: 500}, {end: 503}, {err: errors.New("away")}} {
		p = start(t, w.behind(again))
		w.transfer(2)
		p.sync()
		p.mustStop()
		if again.asked != 1 || again.err != nil && !strings.Contains(p.log.String(), "cannot be looked at") {
			t.Errorf("%+v: log %s", again, p.log)
		}
	}
	if c := w.check(); c.fulls != 1 {
		t.Errorf("%d full files", c.fulls)
	}
}

// TestAfterKilled: killed at any step of its first file, a publisher takes the
// numbers over all the same, with its state directory or, as on another machine,
// without.
func TestAfterKilled(t *testing.T) {
	t.Parallel()
	for _, label := range []string{"claim", "claimed", "part", "part stored", "published", "acknowledged"} {
		for _, keep := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, state kept %t", label, keep), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, func(c *testenv.Config) { c.MaxPayload = 64 << 10 })
				w.blob(200 << 10)
				p := w.startSpec(publisherSpec{After: 500, Crash: label, Nth: 1})
				testenv.Until(t, patience, "the kill", func() error {
					if p.Err() == nil {
						return errors.New("it runs")
					}
					return nil
				})
				cfg := w.behind(&archive{end: 500})
				if !keep {
					cfg.StateDir = filepath.Join(t.TempDir(), "new")
				}
				if keep || label != "published" && label != "acknowledged" { // else it is no descendant for sure
					w.transfer(3)
				}
				last := start(t, cfg)
				last.sync()
				w.transfer(1)
				last.sync()
				if c := w.check(); c.metas[0].Min != 501 || c.replays != 0 || c.fulls != 1 {
					t.Errorf("%d full files, the first file is TXID %s", c.fulls, c.metas[0].Min)
				}
			})
		}
	}
}

// TestAfterUnknown: without a position nothing is published before the archive's
// end is known.
func TestAfterUnknown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	away := errors.New("away")
	_ = start(t, w.behind(&archive{err: away})).mustEnd(away)
	p := start(t, w.behind(&archive{end: 7}))
	if pos := p.sync(); pos.TXID != 8 {
		t.Errorf("the first file has TXID %s", pos.TXID)
	}
	w.check()
}

// TestAfterAhead: an archive that went on elsewhere is not continued, unless it is
// forced.
func TestAfterAhead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := start(t, w.config())
	w.transfer(3)
	p.sync()
	p.mustStop()
	before := w.lastSeq()
	a := &archive{end: 500}
	ahead, ok := errors.AsType[*AheadError](start(t, w.behind(a)).mustEnd(ErrAhead))
	if !ok || ahead.Archive != 500 || ahead.Stream == 0 || ahead.Local != ahead.Stream {
		t.Errorf("%+v", ahead)
	}
	if w.lastSeq() != before {
		t.Error("something was published, or claimed")
	}
	cfg := w.behind(a)
	cfg.ForceReseed = true
	p = start(t, cfg)
	if pos := p.sync(); pos.TXID != 501 {
		t.Errorf("forced to TXID %s", pos.TXID)
	}
	p.mustStop()
	w.check()
}

// TestAfterAllIsLost: stream and state are gone, an archive of ours is left.
func TestAfterAllIsLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := start(t, w.behind(&archive{end: 500}))
	w.transfer(3)
	end := p.sync()
	p.mustStop()
	w.empty("deleted")
	cfg := w.behind(&archive{end: end.TXID})
	cfg.StateDir = filepath.Join(t.TempDir(), "new")
	p = start(t, cfg)
	if pos := p.sync(); pos.TXID != end.TXID+1 {
		t.Errorf("went on at %s behind %s", pos.TXID, end.TXID)
	}
	w.check()
}
