package feed

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/internal/stream/streamtest"
	"github.com/ltxstream/ltxstream/testenv"
	"github.com/superfly/ltx"
)

// TestLeaderStops follows a stream of three replicas whose leader is stopped
// again and again: every file comes, in order.
func TestLeaderStops(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("needs a cluster")
	}
	cluster := testenv.Cluster(t)
	js := testenv.JetStream(t, testenv.Connect(t, cluster.URL(), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})))
	if _, err := stream.Ensure(t.Context(), js, stream.Config{Replicas: 3}); err != nil {
		t.Fatal(err)
	}
	h, c := newHarness(t, js, nil), streamtest.NewChain("app", 1)
	full := c.Full(t, 5)
	c.Publish(t, js, full, 0)
	h.seek(ltx.Pos{}, 0)
	h.patient(full)
	for range 2 {
		node, err := cluster.StopLeader(t.Context(), "LTX")
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			f := c.Step(t, 2)
			publishPatiently(t, js, c, f)
			h.patient(f)
		}
		if err := node.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := cluster.WaitCurrent(t.Context(), "LTX"); err != nil {
			t.Fatal(err)
		}
	}
	h.clean()
}

// patient is next through errors that pass.
func (h *harness) patient(want streamtest.File) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), 60*time.Second)
	defer cancel()
	for {
		f, err := h.Next(ctx)
		if err == nil {
			h.same(f, want)
			return
		}
		if ctx.Err() != nil || stream.Classify(err) != stream.Transient {
			h.t.Fatalf("next: %v, want TXID %s", err, want.Meta.Min)
		}
	}
}

// publishPatiently publishes one message until it is stored once.
func publishPatiently(t *testing.T, js jetstream.JetStream, c *streamtest.Chain, f streamtest.File) {
	t.Helper()
	m := c.Messages(f, 1<<20)[0]
	deadline := time.Now().Add(60 * time.Second)
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		ack, err := js.PublishMsg(ctx, m) // its id makes a second try harmless
		cancel()
		if err == nil {
			c.LastSeq = ack.Sequence
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("publish: %v", err)
		}
	}
}
