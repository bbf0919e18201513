package feed

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/stream/streamtest"
)

func incomingFrom(limit int64) func(*Config) {
	return func(c *Config) { c.Incoming, c.MemoryLimit = true, limit }
}

// read reads a file as a replica does: once, and refuses it if it is not want.
func (h *harness) read(ctx context.Context, f *File, want streamtest.File) (ok bool) {
	h.t.Helper()
	got, err := io.ReadAll(f.Section(ctx))
	if ok = err == nil && bytes.Equal(got, want.Data); !ok && err == nil {
		h.Refuse(f, ErrContent)
	}
	if err := f.Close(); err != nil {
		h.t.Fatal(err)
	}
	return ok
}

// consume waits for want, however often a file breaks off.
func (h *harness) consume(want streamtest.File) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), time.Minute)
	defer cancel()
	for {
		f, err := h.Next(ctx)
		if err != nil {
			h.t.Fatalf("next: %v, want TXID %s; damage %v", err, want.Meta.Min, h.damage)
		}
		last := f.in == nil
		if h.read(ctx, f, want) {
			if pos, seq := h.Position(); pos != want.Meta.PostPos() || seq != f.LastSeq || f.LastSeq < f.FirstSeq {
				h.t.Fatalf("at %s, %d after TXID %s of %d to %d", pos, seq, want.Meta.Min, f.FirstSeq, f.LastSeq)
			}
			return
		}
		if last {
			h.t.Fatalf("TXID %s was verified, and is not %s", f.Meta.Min, want.Meta.Min)
		}
	}
}

// A large file is handed out with its first part; the next one follows as soon as
// it was read.
func TestIncoming(t *testing.T) {
	t.Parallel()
	js := streamtest.Connect(t, streamtest.Server(t, nil))
	h, c := newHarness(t, js, incomingFrom(5_000)), streamtest.NewChain("app", 1)
	full := c.Full(t, 200)
	c.Publish(t, js, full, len(full.Data)/2)
	h.seek(ltx.Pos{}, 0)
	h.consume(full)
	for _, parts := range []int{2, 3, lagFrom, 3 * lagFrom} {
		for try, whole := 1, false; !whole; try++ {
			want := c.Step(t, 150)
			msgs := c.Messages(want, len(want.Data)/parts+1)
			publishAll(t, js, c, msgs[:1])
			f, err := h.Next(t.Context())
			if err != nil || f.in == nil {
				t.Fatalf("with the first of %d parts: %v, %v", parts, f, err)
			}
			if _, err := h.Next(t.Context()); err == nil {
				t.Fatal("Next while a file is open")
			}
			var wg sync.WaitGroup
			wg.Go(func() { publishAll(t, js, c, msgs[1:]) })
			whole = h.read(t.Context(), f, want)
			wg.Wait()
			if !whole { // a slow machine breaks one off now and then: it comes again
				h.consume(want)
			}
			small := c.Step(t, 1)
			c.Publish(t, js, small, 0)
			h.consume(small)
			if !whole && try == 5 {
				t.Fatalf("%d files of %d parts broke off", try, parts)
			}
		}
	}
	h.clean()
}

// What is closed before it was read whole comes again, from its first part.
func TestIncomingClosedEarly(t *testing.T) {
	t.Parallel()
	js := streamtest.Connect(t, streamtest.Server(t, nil))
	h, c := newHarness(t, js, incomingFrom(1)), streamtest.NewChain("app", 2)
	full := c.Full(t, 100)
	c.Publish(t, js, full, len(full.Data)/40)
	h.seek(ltx.Pos{}, 0)
	for _, n := range []int{0, 1, len(full.Data) / 2, len(full.Data)} {
		f, err := h.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if n == len(full.Data) {
			if !h.read(t.Context(), f, full) {
				t.Fatal("not what was published")
			}
			break
		}
		b := make([]byte, n)
		if _, err := f.Section(t.Context()).ReadAt(b, 0); err != nil || !bytes.Equal(b, full.Data[:n]) {
			t.Fatalf("the first %d bytes: %v", n, err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	h.clean()
}

// The wait for a part ends with the reader's context.
func TestIncomingContextEnds(t *testing.T) {
	t.Parallel()
	js := streamtest.Connect(t, streamtest.Server(t, nil))
	h, c := newHarness(t, js, incomingFrom(1)), streamtest.NewChain("app", 3)
	base := c.Full(t, 100)
	c.Publish(t, js, base, 0)
	h.seek(ltx.Pos{}, 0)
	h.consume(base)
	full := c.Step(t, 90)
	msgs := c.Messages(full, len(full.Data)/40)
	publishAll(t, js, c, msgs[:30])
	f, err := h.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	time.AfterFunc(50*time.Millisecond, func() { cancel(gone) })
	if h.read(ctx, f, full) {
		t.Fatal("read whole before it was published")
	}
	publishAll(t, js, c, msgs[30:])
	h.consume(full)
}

func TestIncomingTamperedWith(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		edit   func([]*nats.Msg) []*nats.Msg
		damage error // nil: the file comes through
	}{
		"swapped":            {func(m []*nats.Msg) []*nats.Msg { m[1], m[2] = m[2], m[1]; return m }, ErrPart},
		"one is missing":     {func(m []*nats.Msg) []*nats.Msg { return slices.Delete(m, 1, 2) }, ErrPart},
		"truncated":          {func(m []*nats.Msg) []*nats.Msg { m[1].Data = m[1].Data[:10]; return m }, ErrSize},
		"empty first":        {func(m []*nats.Msg) []*nats.Msg { m[0].Data = nil; return m }, ErrSize},
		"bit flipped":        {func(m []*nats.Msg) []*nats.Msg { m[2].Data = flip(m[2].Data, 40); return m }, ErrContent},
		"replayed":           {func(m []*nats.Msg) []*nats.Msg { return slices.Insert(m, 2, m[0], m[1]) }, nil},
		"foreign in between": {func(m []*nats.Msg) []*nats.Msg { return slices.Insert(m, 2, &nats.Msg{Subject: m[0].Subject}) }, nil},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			js := streamtest.Connect(t, streamtest.Server(t, nil))
			noDuplicates(t, js)
			h, c := newHarness(t, js, incomingFrom(1)), streamtest.NewChain("app", 1)
			full := c.Full(t, 20)
			c.Publish(t, js, full, 0)
			victim := c.Step(t, 8)
			publishAll(t, js, c, tc.edit(c.Messages(victim, int(victim.Meta.Size)/4+1)))
			after := c.Step(t, 2)
			c.Publish(t, js, after, 0)
			h.seek(ltx.Pos{}, 0)
			h.consume(full)
			if tc.damage == nil {
				h.consume(victim)
				h.consume(after)
				return
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			for {
				f, err := h.Next(ctx)
				if err != nil {
					isGap(t, err, victim.Meta.Min, after.Meta.Min)
					break
				}
				if h.read(ctx, f, victim) {
					t.Fatal("a file that was tampered with came through")
				}
			}
			if !h.reported(tc.damage) {
				t.Errorf("reported %v, want %v", h.damage, tc.damage)
			}
		})
	}
}
