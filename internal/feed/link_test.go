package feed

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/internal/stream/streamtest"
	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/faults"
)

// TestConnectionLostWhileAsking: an answer that went with the connection is not
// waited for.
func TestConnectionLostWhileAsking(t *testing.T) {
	t.Parallel()
	srv := streamtest.Server(t, nil)
	proxy := testenv.Proxy(t, srv.ClientURL())
	js := testenv.JetStream(t, testenv.Connect(t, "nats://"+proxy.Addr(), nats.ReconnectWait(10*time.Millisecond)))
	h, c := newHarness(t, js, nil), streamtest.NewChain("app", 1)
	files := []streamtest.File{c.Full(t, 3), c.Step(t, 1), c.Step(t, 2)}
	for _, f := range files {
		c.Publish(t, js, f, 1<<20)
	}
	cases := map[string]func(context.Context) error{
		"seek": func(ctx context.Context) error { return h.Seek(ctx, files[1].Meta.PostPos(), 0) },
		"next": func(ctx context.Context) error { _, err := h.Next(ctx); return err },
	}
	for _, name := range []string{"seek", "next"} {
		h.seek(files[0].Meta.PostPos(), 0)
		proxy.Set(faults.Fault{BlackHole: true})
		ended := make(chan error, 1)
		go func() { ended <- cases[name](t.Context()) }()
		<-time.After(50 * time.Millisecond) // the question is on its way
		began := time.Now()
		proxy.Reset()
		if err := <-ended; !errors.Is(err, stream.ErrAway) {
			t.Errorf("%s: %v, want stream.ErrAway", name, err)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("%s: the answer was waited for for %v", name, took)
		}
		proxy.Set(faults.Fault{})
		testenv.Until(t, 15*time.Second, "the connection", func() error { return h.Seek(t.Context(), files[0].Meta.PostPos(), 0) })
		h.next(files[1])
		h.next(files[2])
	}
	h.clean()
}
