package publisher

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/internal/capture"
	"github.com/superfly/ltx"
)

// TestKilledWithinAReseed kills a publisher between the decision to publish a
// full file and its acknowledgement. The application goes on meanwhile, so that
// nothing can be proved: the next run does as was decided, without being forced.
func TestKilledWithinAReseed(t *testing.T) {
	t.Parallel()
	for name, decided := range map[string]func(t *testing.T) (*world, publisherSpec){
		"the server lost more than the spool keeps": lostMoreThanTheSpoolKeeps,
		"forced":                    forced,
		"forced over somebody else": forcedOverSomebodyElse,
	} {
		for _, label := range []string{"joined", "cleared", "claimed", "spooled", "part"} {
			t.Run(name+", "+label, func(t *testing.T) {
				t.Parallel()
				w, spec := decided(t)
				fulls := w.read().fulls
				spec.Crash, spec.Nth = label, 1
				killed(t, w.startSpec(spec))
				w.transfer(3)
				last := start(t, w.config())
				last.sync()
				w.transfer(3)
				last.sync()
				if c := w.check(); c.fulls != fulls+1 || c.replays != 0 {
					t.Fatalf("%d full files after %d, %d replays", c.fulls, fulls, c.replays)
				}
			})
		}
	}
}

func lostMoreThanTheSpoolKeeps(t *testing.T) (*world, publisherSpec) {
	w := newWorld(t)
	cfg := w.config()
	cfg.PerTransaction = true
	p := start(t, cfg)
	p.sync()
	w.lose(func() {
		w.transfer(50)
		p.sync()
		p.mustStop()
		w.forget(1)
	})
	return w, publisherSpec{}
}

func forced(t *testing.T) (*world, publisherSpec) {
	w := newWorld(t)
	p := start(t, w.config())
	w.transfer(10)
	p.sync()
	p.mustStop()
	return w, publisherSpec{ForceReseed: true}
}

func forcedOverSomebodyElse(t *testing.T) (*world, publisherSpec) {
	w := newWorld(t)
	p := start(t, w.config())
	p.sync()
	p.mustStop()
	other := w.twin()
	p = start(t, w.config())
	w.transfer(10)
	p.sync()
	p.mustStop()
	other.transfer(1)
	return other, publisherSpec{ForceReseed: true}
}

// TestSlowerClockTakesOver: timestamps do not go back where the one who published
// before had a clock an hour ahead.
func TestSlowerClockTakesOver(t *testing.T) {
	t.Parallel()
	for name, force := range map[string]bool{"adopted": false, "forced": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			ahead := time.Now().Add(time.Hour)
			c, err := capture.Open(t.Context(), capture.Config{Path: w.path})
			if err == nil {
				err = errors.Join(c.Reseed(ltx.Pos{}, capture.End{Time: ahead}), c.Close())
			}
			if err != nil {
				t.Fatal(err)
			}
			p := start(t, w.config())
			p.sync()
			p.mustStop()
			if got := w.read().time; got.Before(ahead.Truncate(time.Millisecond)) {
				t.Fatalf("the first file is of %s", got)
			}
			cfg := w.config()
			cfg.StateDir, cfg.ForceReseed = filepath.Join(t.TempDir(), "new"), force
			p = start(t, cfg)
			p.sync()
			w.transfer(1)
			p.sync()
			w.check() // that no file is older than the one before
		})
	}
}
