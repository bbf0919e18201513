package feed

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/superfly/ltx"

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
	nc := testenv.Connect(t, "nats://"+proxy.Addr(), nats.ReconnectWait(10*time.Millisecond))
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	h, c := newHarness(t, js, nil), streamtest.NewChain("app", 1)
	h.idle = time.Minute
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
		ended, asked := make(chan error, 1), nc.Stats().OutMsgs
		go func() { ended <- cases[name](t.Context()) }()
		testenv.Until(t, time.Minute, "the question to be on its way", func() error {
			if left, err := nc.Buffered(); err != nil || left > 0 || nc.Stats().OutMsgs == asked {
				return fmt.Errorf("%d messages, %d bytes are left: %w", nc.Stats().OutMsgs-asked, left, err)
			}
			return nil
		})
		began := time.Now()
		proxy.Reset()
		if err := <-ended; !errors.Is(err, stream.ErrAway) {
			t.Errorf("%s: %v, want stream.ErrAway", name, err)
		}
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("%s: the answer was waited for for %v", name, took)
		}
		proxy.Set(faults.Fault{})
		testenv.Until(t, time.Minute, "the connection", func() error { return h.Seek(t.Context(), files[0].Meta.PostPos(), 0) })
		h.next(files[1])
		h.next(files[2])
	}
	h.clean()
}

// TestWatchdogOfShortCalls: it looks around also where nobody waits for long in one
// call of Next.
func TestWatchdogOfShortCalls(t *testing.T) {
	t.Parallel()
	js, h, c := start(t)
	h.idle = 100 * time.Millisecond
	full := c.Full(t, 5)
	c.Publish(t, js, full, 0)
	h.seek(ltx.Pos{}, 0)
	h.next(full)
	streamtest.Eventually(t, "the watchdog", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		_, _ = h.Next(ctx)
		return h.con != nil && h.con.idle > h.idle
	})
}
