package feed

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/internal/stream/streamtest"
)

// harness is a feed under test with what it reported.
type harness struct {
	*Feed
	t  testing.TB
	js jetstream.JetStream

	mu     sync.Mutex
	damage []error
}

func newHarness(t testing.TB, js jetstream.JetStream, edit func(*Config)) *harness {
	t.Helper()
	s, err := stream.Ensure(t.Context(), js, stream.Config{})
	if err != nil {
		t.Fatal(err)
	}
	h := &harness{t: t, js: js}
	cfg := Config{
		Stream: s, JS: js, DB: "app", Durable: "r1", SpoolDir: t.TempDir(), Logger: slog.New(slog.DiscardHandler),
		OnDamage: func(err error) { h.mu.Lock(); h.damage = append(h.damage, err); h.mu.Unlock() },
	}
	if edit != nil {
		edit(&cfg)
	}
	if h.Feed, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func (h *harness) seek(pos ltx.Pos, seq uint64) {
	h.t.Helper()
	if err := h.Seek(h.t.Context(), pos, seq); err != nil {
		h.t.Fatal(err)
	}
}

// next wants a file with the content of want.
func (h *harness) next(want streamtest.File) *File {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), time.Minute)
	defer cancel()
	f, err := h.Next(ctx)
	if err != nil {
		h.t.Fatalf("next: %v, want TXID %s; damage %v", err, want.Meta.Min, h.damage)
	}
	h.same(f, want)
	return f
}

func (h *harness) same(f *File, want streamtest.File) {
	h.t.Helper()
	got, err := io.ReadAll(f.Section(h.t.Context()))
	if err != nil {
		h.t.Fatal(err)
	}
	if f.Meta.PostPos() != want.Meta.PostPos() || !bytes.Equal(got, want.Data) {
		h.t.Fatalf("got %s (%d bytes), want %s (%d bytes)", f.Meta.PostPos(), len(got), want.Meta.PostPos(), len(want.Data))
	}
	if err := f.Close(); err != nil {
		h.t.Fatal(err)
	}
}

// fails wants an error instead of a file.
func (h *harness) fails() error {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), time.Minute)
	defer cancel()
	f, err := h.Next(ctx)
	if err == nil {
		h.t.Fatalf("got TXID %s, want an error", f.Meta.Min)
	}
	return err
}

// reported tells whether a damage report wraps target.
func (h *harness) reported(target error) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.ContainsFunc(h.damage, func(err error) bool { return errors.Is(err, target) })
}

func (h *harness) clean() {
	h.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.damage) > 0 {
		h.t.Fatalf("damage reported: %v", h.damage)
	}
}

func start(t *testing.T) (jetstream.JetStream, *harness, *streamtest.Chain) {
	t.Helper()
	js := streamtest.Connect(t, streamtest.Server(t, nil))
	noDuplicates(t, js)
	return js, newHarness(t, js, nil), streamtest.NewChain("app", 1)
}

func isGap(t *testing.T, err error, want, got ltx.TXID) {
	t.Helper()
	gap, ok := errors.AsType[*GapError](err)
	if !ok || gap.Want != want || gap.Got != got {
		t.Fatalf("got %v, want a gap from %s to %s", err, want, got)
	}
}

func isFork(t *testing.T, err error) {
	t.Helper()
	if _, ok := errors.AsType[*ForkError](err); !ok {
		t.Fatalf("got %v, want a fork", err)
	}
}

// message is one data message of a file in parts, to be tampered with.
func publishAll(t *testing.T, js jetstream.JetStream, c *streamtest.Chain, msgs []*nats.Msg) {
	t.Helper()
	for _, m := range msgs {
		c.Inject(t, js, m)
	}
}

func flip(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 0x10
	return b
}

// noDuplicates makes the stream with the shortest memory of message ids, so
// that replays are stored.
func noDuplicates(t testing.TB, js jetstream.JetStream) {
	t.Helper()
	_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "LTX", Subjects: []string{"ltx.>"}, Discard: jetstream.DiscardNew, Duplicates: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
}

func purge(t *testing.T, js jetstream.JetStream, below uint64) {
	t.Helper()
	s, err := js.Stream(t.Context(), "LTX")
	if err != nil {
		t.Fatal(err)
	}
	var opts []jetstream.StreamPurgeOpt
	if below > 0 {
		opts = append(opts, jetstream.WithPurgeSequence(below))
	}
	if err := s.Purge(t.Context(), opts...); err != nil {
		t.Fatal(err)
	}
}
