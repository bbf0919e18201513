package publisher

import (
	"errors"
	"testing"

	"github.com/ltxstream/ltxstream/testenv"
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
				p := w.startSpec(spec)
				testenv.Until(t, patience, "the kill", func() error {
					if p.Err() == nil {
						return errors.New("it runs")
					}
					return nil
				})
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
		w.transfer(20)
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
