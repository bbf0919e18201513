package feed

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/stream/streamtest"
	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/faults"
	"github.com/ltxstream/ltxstream/wire"
)

// flood stores a full file and n behind it.
func flood(t *testing.T, h *harness, c *streamtest.Chain, n int) (first streamtest.File) {
	t.Helper()
	first = c.Full(t, 1)
	c.Publish(t, h.js, first, 0)
	more(t, h, c, n)
	return first
}

func more(t *testing.T, h *harness, c *streamtest.Chain, n int) {
	t.Helper()
	for range n {
		if _, err := h.js.PublishMsgAsync(c.Messages(c.Step(t, 1), 1<<20)[0]); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-h.js.PublishAsyncComplete():
	case <-time.After(time.Minute):
		t.Fatal("the stream does not store")
	}
}

// TestScanEnds: a scan reads what there was when it began, however fast more comes.
func TestScanEnds(t *testing.T) {
	t.Parallel()
	_, h, c := start(t)
	h.pull = 50
	flood(t, h, c, 79)
	seen := 0
	err := h.scan(t.Context(), func(wire.Meta, uint64) {
		if seen++; seen == 1 {
			more(t, h, c, 50)
		}
	})
	if want := 80; err != nil || seen != want {
		t.Fatalf("%d messages, want %d: %v", seen, want, err)
	}
}

// TestScanBroken: whatever is lost with a connection, a scan finds what there is,
// or says that it failed; the next one begins anew.
func TestScanBroken(t *testing.T) {
	t.Parallel()
	srv := streamtest.Server(t, nil)
	noDuplicates(t, streamtest.Connect(t, srv))
	proxy := testenv.Proxy(t, srv.ClientURL())
	h := newHarness(t, testenv.JetStream(t, testenv.Connect(t, "nats://"+proxy.Addr(), nats.ReconnectWait(5*time.Millisecond))), nil)
	h.pull = 50
	first := flood(t, h, streamtest.NewChain("app", 1), 120)
	whole := 0
	for n := range 6 {
		proxy.CutAfter(faults.Down, int64(n)*8_000)
		var pos ltx.Pos
		testenv.Until(t, time.Minute, "a scan", func() (err error) {
			pos, _, err = h.FindChecksum(t.Context(), first.Meta.Post)
			if err == nil && pos.IsZero() {
				t.Fatal("a scan without an error did not find it")
			}
			return err
		})
		if pos == first.Meta.PostPos() {
			whole++
		}
	}
	if whole != 6 {
		t.Fatalf("%d of 6 scans found it", whole)
	}
}

// TestEpochsBeginAnew: a publisher that finds nothing of the database in the
// stream, and was restarted, cannot know how far the epochs had come.
func TestEpochsBeginAnew(t *testing.T) {
	t.Parallel()
	for _, other := range []bool{false, true} {
		js, h, c := start(t)
		c.Epoch = 2
		c.Claim(t, js)
		full := c.Full(t, 5)
		c.Publish(t, js, full, 0)
		step := c.Step(t, 1)
		c.Publish(t, js, step, 0)
		h.seek(ltx.Pos{}, 0)
		h.next(full)
		h.next(step)
		s, err := js.Stream(t.Context(), "LTX")
		if err == nil {
			err = s.Purge(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		c.LastSeq, c.Base, c.Epoch = 0, 0, 1
		if other {
			c = streamtest.NewChain("app", 77)
			c.Writer = "writer-9"
		}
		c.Claim(t, js)
		next := c.Full(t, 5)
		c.Publish(t, js, next, 0)
		if !other {
			h.next(next)
			h.clean()
			continue
		}
		isFork(t, h.fails())
	}
}
