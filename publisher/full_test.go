package publisher

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/faults"
	"github.com/nats-io/nats.go"
)

// TestFullOnRequest: a full file is published when it is asked for, also when
// nothing was committed since, and askers at one time share it.
func TestFullOnRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.transfer(5)
	r := start(t, w.config())
	before, want := r.sync(), w.read().fulls
	for shared, round := 0, 0; shared < 2; round++ {
		if round == 20 {
			t.Fatalf("the askers of %d rounds shared a full file", shared)
		}
		var askers sync.WaitGroup
		for range 3 {
			askers.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				pos, err := r.Full(ctx)
				if err != nil || pos.TXID <= before.TXID {
					t.Errorf("round %d: %s after %s: %v", round, pos, before, err)
				}
			})
		}
		askers.Wait()
		before = r.sync()
		fulls := w.read().fulls
		if n := fulls - want; n < 1 || n > 3 {
			t.Fatalf("round %d: %d full files for three askers", round, n)
		} else if n < 3 { // an asker that comes late has one of its own
			shared++
		}
		want = fulls
	}
	w.transfer(3)
	r.sync()
	r.mustStop()
	if fulls := w.check().fulls; fulls != want {
		t.Errorf("%d full files, want %d", fulls, want)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := r.Full(ctx); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("after the end: %v", err)
	}
}

// TestFullWithLostAck: a full file that is stored is published, also when its
// acknowledgement is lost with the connection, and the next one can be asked for.
// One of which a part is stored is not.
func TestFullWithLostAck(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		way    faults.Direction
		after  int64
		blob   int
		rounds int
	}{
		"within the answer": {faults.Down, 1, 0, 20},
		"within the file":   {faults.Up, 3 << 19, 3 << 20, 5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.blob(c.blob)
			proxy := testenv.Proxy(t, w.node.URL())
			cfg := w.config()
			cfg.JS = testenv.JetStream(t, testenv.Connect(t, "nats://"+proxy.Addr(), nats.ReconnectWait(5*time.Millisecond)))
			r := start(t, cfg)
			before := r.sync()
			for range c.rounds {
				proxy.CutAfter(c.way, c.after)
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				pos, err := r.Full(ctx)
				cancel()
				if err != nil || pos.TXID <= before.TXID {
					t.Fatalf("%s after %s: %v; status %+v", pos, before, err, r.Status())
				}
				before = pos
			}
			r.sync()
			w.check()
		})
	}
}
