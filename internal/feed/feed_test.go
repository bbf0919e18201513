package feed

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/superfly/ltx"
	"go.uber.org/goleak"

	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/internal/stream/streamtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFilesInOrder(t *testing.T) {
	t.Parallel()
	js, h, c := start(t)
	if err := h.Seek(t.Context(), ltx.Pos{}, 0); !errors.Is(err, ErrNoBase) {
		t.Fatalf("empty stream: %v", err)
	}
	c.Claim(t, js)
	var files []streamtest.File
	for i := range 20 {
		f := c.Grow(t, 10, 3)
		c.Publish(t, js, f, []int{0, 700, 100}[i%3])
		files = append(files, f)
	}
	h.seek(ltx.Pos{}, 0)
	for _, f := range files {
		h.next(f)
	}
	live := c.Step(t, 1)
	seq := c.Publish(t, js, live, 0)
	h.next(live)
	if pos, at := h.Position(); pos != c.Pos || at != seq || h.Writer() != c.Writer {
		t.Fatalf("position %s at %d by %s", pos, at, h.Writer())
	}
	h.clean()
}

func TestResumeBySequenceAndByTXID(t *testing.T) {
	t.Parallel()
	js, h, c := start(t)
	var files []streamtest.File
	var seqs []uint64
	for range 12 {
		f := c.Grow(t, 10, 3)
		seqs = append(seqs, c.Publish(t, js, f, 400))
		files = append(files, f)
	}
	for i := range 11 {
		for _, seq := range []uint64{seqs[i], 0, seqs[i] + 1, 9999, 1} { // right, unknown, wrong
			h.seek(files[i].Meta.PostPos(), seq)
			h.next(files[i+1])
		}
	}
	h.seek(files[11].Meta.PostPos(), 0)
	f := c.Step(t, 1)
	c.Publish(t, js, f, 0)
	h.next(f)
	h.clean()
}

func TestLargeFileIsSpooledAndRemoved(t *testing.T) {
	t.Parallel()
	js := streamtest.Connect(t, streamtest.Server(t, nil))
	dir := t.TempDir()
	left := dir + "/feed-1.spool"
	if err := os.WriteFile(left, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := newHarness(t, js, func(c *Config) { c.SpoolDir, c.MemoryLimit = dir, 10_000 })
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Fatal("the leftover of a crash is still there")
	}
	c := streamtest.NewChain("app", 1)
	full := c.Full(t, 200)
	c.Publish(t, js, full, 5000)
	small := c.Step(t, 1)
	c.Publish(t, js, small, 0)
	h.seek(ltx.Pos{}, 0)
	f, err := h.Next(t.Context())
	if err != nil || f.body.spool == nil {
		t.Fatalf("not spooled: %v", err)
	}
	h.next(small) // the large one is still readable
	h.same(f, full)
	if names, _ := os.ReadDir(dir); len(names) != 0 {
		t.Fatalf("spool left: %v", names)
	}
	h.clean()
}

func TestPartsTamperedWith(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		edit   func([]*nats.Msg) []*nats.Msg
		damage error // nil: the file comes through
	}{
		"swapped":            {func(m []*nats.Msg) []*nats.Msg { m[1], m[2] = m[2], m[1]; return m }, ErrPart},
		"first is missing":   {func(m []*nats.Msg) []*nats.Msg { return m[1:] }, ErrPart},
		"one is missing":     {func(m []*nats.Msg) []*nats.Msg { return slices.Delete(m, 1, 2) }, ErrPart},
		"last is missing":    {func(m []*nats.Msg) []*nats.Msg { return m[:len(m)-1] }, nil},
		"truncated":          {func(m []*nats.Msg) []*nats.Msg { m[1].Data = m[1].Data[:10]; return m }, ErrSize},
		"truncated last":     {func(m []*nats.Msg) []*nats.Msg { m[3].Data = m[3].Data[:1]; return m }, ErrSize},
		"empty first":        {func(m []*nats.Msg) []*nats.Msg { m[0].Data = nil; return m }, ErrSize},
		"bit flipped":        {func(m []*nats.Msg) []*nats.Msg { m[2].Data = flip(m[2].Data, 40); return m }, ErrContent},
		"LTX header flipped": {func(m []*nats.Msg) []*nats.Msg { m[0].Data = flip(m[0].Data, 35); return m }, ErrContent},
		"replayed":           {func(m []*nats.Msg) []*nats.Msg { return slices.Insert(m, 2, m[0], m[1]) }, nil},
		"foreign in between": {func(m []*nats.Msg) []*nats.Msg { return slices.Insert(m, 2, &nats.Msg{Subject: m[0].Subject}) }, nil},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			js, h, c := start(t)
			full := c.Full(t, 20)
			c.Publish(t, js, full, 0)
			victim := c.Step(t, 8)
			msgs := c.Messages(victim, int(victim.Meta.Size)/4+1)
			publishAll(t, js, c, tc.edit(msgs))
			after := c.Step(t, 2)
			c.Publish(t, js, after, 0)
			h.seek(ltx.Pos{}, 0)
			h.next(full)
			if tc.damage == nil && name != "last is missing" {
				h.next(victim)
				h.next(after)
				return
			}
			// A half-joined file makes what does not fit foreign; so look at
			// the chain from where the replica stands.
			if name == "last is missing" {
				seen := func() bool { return h.reported(ErrForeign) }
				ctx, cancel := context.WithCancel(t.Context())
				go func() { defer cancel(); streamtest.Eventually(t, "report", seen) }()
				if f, err := h.Next(ctx); err == nil {
					t.Fatalf("handed out %s", f.Meta.PostPos())
				}
				return
			}
			isGap(t, h.fails(), 2, 3)
			isGap(t, h.fails(), 2, 3) // it comes back
			if !h.reported(tc.damage) {
				t.Fatalf("reported %v, want %v", h.damage, tc.damage)
			}
			full2 := c.Full(t, 0)
			c.Publish(t, js, full2, 0)
			h.seek(ltx.Pos{}, 0)
			h.next(full2)
		})
	}
}

func TestForeignMessagesAreSkipped(t *testing.T) {
	t.Parallel()
	js, h, c := start(t)
	full := c.Full(t, 5)
	c.Publish(t, js, full, 0)
	other := streamtest.NewChain("other", 9)
	alien := other.Messages(other.Full(t, 2), 1<<20)[0]
	alien.Subject = "ltx.app.0"
	for _, m := range []*nats.Msg{
		{Subject: "ltx.app.0", Data: []byte("hello")},
		{Subject: "ltx.app.1", Data: []byte("hello")},
		{Subject: "ltx.app.epoch", Data: []byte("hello")},
		{Subject: "ltx.app.x.y", Data: []byte("hello")},
		alien,
	} {
		c.Inject(t, js, m)
	}
	step := c.Step(t, 1)
	c.Publish(t, js, step, 0)
	h.seek(ltx.Pos{}, 0)
	h.next(full)
	h.next(step)
	if h.Stats().Damaged != 5 {
		t.Fatalf("%d reported, want 5: %v", h.Stats().Damaged, h.damage)
	}
}

func TestStaleEpochAfterClaimIsIgnored(t *testing.T) {
	t.Parallel()
	js, h, c := start(t)
	c.Claim(t, js)
	full := c.Full(t, 5)
	c.Publish(t, js, full, 0)
	old := *c
	old.Pages = slices.Clone(c.Pages)
	c.Epoch, c.Writer = 2, "writer-2"
	c.Claim(t, js)
	stale := old.Step(t, 2)
	c.Inject(t, js, old.Messages(stale, 1<<20)[0])
	good := c.Step(t, 1)
	c.Publish(t, js, good, 0)
	h.seek(ltx.Pos{}, 0)
	h.next(full)
	h.next(good)
	// The claim is also known to a feed that begins after it.
	late := newHarness(t, js, func(cfg *Config) { cfg.Durable = "r2" })
	c.Inject(t, js, old.Messages(stale, 600)[0])
	after := c.Step(t, 1)
	c.Publish(t, js, after, 0)
	late.seek(good.Meta.PostPos(), 0)
	late.next(after)
	if h.Stats().Stale != 1 || late.Stats().Stale != 1 {
		t.Fatalf("stale: %d, %d", h.Stats().Stale, late.Stats().Stale)
	}
}

func TestReplayIsDropped(t *testing.T) {
	t.Parallel()
	js := streamtest.Connect(t, streamtest.Server(t, nil))
	noDuplicates(t, js)
	h, c := newHarness(t, js, nil), streamtest.NewChain("app", 1)
	full, one := c.Full(t, 5), streamtest.File{}
	c.Publish(t, js, full, 300)
	one = c.Step(t, 1)
	c.Publish(t, js, one, 0)
	publishAll(t, js, c, c.Messages(full, 300))
	publishAll(t, js, c, c.Messages(one, 1<<20))
	two := c.Step(t, 1)
	c.Publish(t, js, two, 0)
	h.seek(full.Meta.PostPos(), 0)
	h.next(one)
	h.next(two)
	if h.Stats().Replayed < uint64(len(c.Messages(full, 300))+1) {
		t.Fatalf("%d replays seen", h.Stats().Replayed)
	}
	h.clean()
}

func TestForkAfterClaim(t *testing.T) {
	t.Parallel()
	js, h, c := start(t)
	c.Claim(t, js)
	full := c.Full(t, 5)
	c.Publish(t, js, full, 0)
	other := *c
	other.Pages = slices.Clone(c.Pages)
	one := c.Step(t, 1)
	h.seek(ltx.Pos{}, 0)
	h.next(full)
	seq := c.Publish(t, js, one, 0)
	h.next(one)

	other.LastSeq, other.Epoch, other.Writer = seq, 2, "writer-2"
	other.Claim(t, js)
	two := other.Step(t, 2)
	other.Publish(t, js, two, 0)
	isFork(t, h.fails())
	isFork(t, h.fails())

	// One TXID later the checksum before it does not fit.
	late := newHarness(t, js, func(cfg *Config) { cfg.Durable = "r2" })
	late.seek(one.Meta.PostPos(), 0)
	isFork(t, late.fails())
	isFork(t, late.Seek(t.Context(), ltx.NewPos(2, one.Meta.Post^1), 0))
	last := other.Step(t, 1)
	other.Publish(t, js, last, 0)
	late.seek(two.Meta.PostPos(), 0)
	late.next(last)
}

func TestFullFileSpansAGap(t *testing.T) {
	t.Parallel()
	js, h, c := start(t)
	full := c.Full(t, 5)
	c.Publish(t, js, full, 0)
	h.seek(ltx.Pos{}, 0)
	h.next(full)
	c.Step(t, 1) // never published
	c.Step(t, 1)
	again := c.Full(t, 5)
	c.Publish(t, js, again, 500)
	h.next(again)
	h.clean()
}

func TestPurgedStreamIsAGap(t *testing.T) {
	t.Parallel()
	js, h, c := start(t)
	full := c.Full(t, 5)
	c.Publish(t, js, full, 0)
	h.seek(ltx.Pos{}, 0)
	h.next(full)
	h.disconnect() // away while it happens
	c.Publish(t, js, c.Step(t, 1), 0)
	c.Publish(t, js, c.Step(t, 1), 0)
	purge(t, js, 0)
	c.LastSeq = 0
	c.Publish(t, js, c.Step(t, 1), 0)
	isGap(t, h.fails(), 2, 4)
	if err := h.Seek(t.Context(), full.Meta.PostPos(), 1); err == nil {
		isGap(t, h.fails(), 2, 4)
	} else {
		isGap(t, err, 2, 4)
	}
}

func TestStreamRecreated(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"same chain goes on", "full file under the same chain", "history began anew", "empty"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			js, h, c := start(t)
			full := c.Full(t, 5)
			c.Publish(t, js, full, 0)
			for range 5 {
				c.Publish(t, js, c.Step(t, 1), 0)
			}
			h.seek(ltx.Pos{}, 0)
			for range 6 {
				f, err := h.Next(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				f.Close()
			}
			if err := js.DeleteStream(t.Context(), "LTX"); err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Ensure(t.Context(), js, stream.Config{}); err != nil {
				t.Fatal(err)
			}
			c.LastSeq, c.Base = 0, 0
			switch name {
			case "same chain goes on":
				f := c.Step(t, 1)
				c.Publish(t, js, f, 0)
				h.next(f)
			case "full file under the same chain":
				f := c.Full(t, 0)
				c.Publish(t, js, f, 0)
				h.next(f)
			case "history began anew":
				other := streamtest.NewChain("app", 77)
				other.Writer = "writer-9"
				other.Claim(t, js)
				f := other.Full(t, 3)
				other.Publish(t, js, f, 0)
				isFork(t, h.fails())
				h.seek(ltx.Pos{}, 0)
				h.next(f)
			case "empty":
				ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
				defer cancel()
				if f, err := h.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Fatalf("%+v, %v", f, err)
				}
				f := c.Step(t, 1)
				c.Publish(t, js, f, 0)
				h.next(f)
			}
		})
	}
}

func TestServerRestart(t *testing.T) {
	t.Parallel()
	opts := &server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoLog: true, NoSigs: true}
	srv := streamtest.Start(t, opts)
	js := streamtest.Connect(t, srv)
	h, c := newHarness(t, js, nil), streamtest.NewChain("app", 1)
	full := c.Full(t, 5)
	c.Publish(t, js, full, 0)
	h.seek(ltx.Pos{}, 0)
	h.next(full)
	for range 3 {
		opts.Port = srv.Addr().(*net.TCPAddr).Port
		streamtest.Stop(srv)
		again, before := *opts, js.Conn().Stats().Reconnects
		srv = streamtest.Start(t, &again)
		streamtest.Eventually(t, "reconnect", func() bool { return js.Conn().Stats().Reconnects > before })
		for range 3 {
			f := c.Step(t, 2)
			c.Publish(t, js, f, 0)
			h.next(f)
		}
	}
	streamtest.Stop(srv)
	h.clean()
}

func TestTwoFeedsOnOneDurable(t *testing.T) {
	t.Parallel()
	js, h, c := start(t)
	c.Publish(t, js, c.Full(t, 5), 0)
	twin := newHarness(t, js, nil)
	h.seek(ltx.Pos{}, 0)
	twin.seek(ltx.Pos{}, 0)
	for range 20 { // slow, but never wrong: each resets the other
		c.Publish(t, js, c.Step(t, 1), 0)
	}
	for _, f := range []*harness{h, twin, h, twin} {
		want := f.pos.TXID + 1
		if got, err := f.Next(t.Context()); err != nil || got.Meta.Min != want {
			t.Fatalf("%+v, %v, want %s", got, err, want)
		}
	}
}

func TestSeekIsRequired(t *testing.T) {
	t.Parallel()
	_, h, _ := start(t)
	if err := h.fails(); err == nil {
		t.Fatal("no error")
	}
	if _, err := New(Config{}); err == nil {
		t.Fatal("an empty config was accepted")
	}
}

func TestLostTailIsWaitedFor(t *testing.T) {
	t.Parallel()
	js, h, c := start(t)
	full := c.Full(t, 5)
	c.Publish(t, js, full, 0)
	before := c.LastSeq
	lost := []streamtest.File{c.Step(t, 1), c.Step(t, 1)}
	for _, f := range lost {
		c.Publish(t, js, f, 0)
	}
	h.seek(ltx.Pos{}, 0)
	h.next(full)
	h.next(lost[0])
	h.next(lost[1])
	h.disconnect()
	// A server that lost what it had acknowledged, as after a power failure.
	if err := js.DeleteStream(t.Context(), "LTX"); err != nil {
		t.Fatal(err)
	}
	noDuplicates(t, js)
	c.LastSeq = 0
	c.Publish(t, js, full, 0)
	if c.LastSeq != before {
		t.Fatal("test: sequences differ")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if f, err := h.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%+v, %v", f, err)
	}
	for _, f := range lost { // the publisher's spool
		c.Publish(t, js, f, 0)
	}
	f := c.Step(t, 1)
	c.Publish(t, js, f, 0)
	h.next(f)
	h.clean()
}
