package feed

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/ltxstream/ltxstream/internal/stream/streamtest"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/superfly/ltx"
)

func TestBaseByHint(t *testing.T) {
	t.Parallel()
	js, h, c := start(t)
	c.Publish(t, js, c.Full(t, 30), 0)
	c.Publish(t, js, c.Step(t, 1), 0)
	full := c.Full(t, 30)
	c.Publish(t, js, full, 900)
	steps := []streamtest.File{c.Step(t, 1), c.Step(t, 2)}
	for _, f := range steps {
		c.Publish(t, js, f, 0)
	}
	h.seek(ltx.Pos{}, 0)
	for _, f := range append([]streamtest.File{full}, steps...) {
		h.next(f)
	}
	// The tail itself, in parts, is the newest one.
	tail := c.Full(t, 30)
	c.Publish(t, js, tail, 900)
	h.seek(ltx.Pos{}, 0)
	h.next(tail)
	h.clean()
}

func TestBaseHintTrimmedOrMissing(t *testing.T) {
	t.Parallel()
	js, h, c := start(t)
	c.Publish(t, js, c.Full(t, 30), 0)
	full := c.Full(t, 30)
	c.Publish(t, js, full, 900)
	hinted := c.Base
	c.Base = 0 // a publisher that does not know
	step := c.Step(t, 1)
	c.Publish(t, js, step, 0)
	h.seek(ltx.Pos{}, 0)
	h.next(full)
	h.next(step)
	c.Base = 1 // trimmed below
	last := c.Step(t, 1)
	c.Publish(t, js, last, 0)
	purge(t, js, hinted)
	h.seek(ltx.Pos{}, 0)
	h.next(full)
	h.next(step)
	h.next(last)
	purge(t, js, hinted+1) // its first part is gone
	if err := h.Seek(t.Context(), ltx.Pos{}, 0); !errors.Is(err, ErrNoBase) {
		t.Fatalf("half a base: %v", err)
	}
}

func TestDamagedBaseFallsBackToAnOlderOne(t *testing.T) {
	t.Parallel()
	js, h, c := start(t)
	first := c.Full(t, 10)
	c.Publish(t, js, first, 0)
	second := c.Full(t, 10)
	msgs := c.Messages(second, 1<<20)
	msgs[0].Data = flip(msgs[0].Data, 300)
	c.Base = c.Inject(t, js, msgs[0])
	c.Publish(t, js, c.Step(t, 1), 0)
	h.seek(ltx.Pos{}, 0)
	if err := h.fails(); !errors.Is(err, ErrNoBase) || !h.reported(ErrContent) {
		t.Fatalf("%v; %v", err, h.damage)
	}
	h.next(first)
	isGap(t, h.fails(), 2, 3)
}

// TestDamagedBaseIsReadOnce: it is not read again and again while there is no other,
// neither by a new replica nor by one that a gap made look for a base.
func TestDamagedBaseIsReadOnce(t *testing.T) {
	t.Parallel()
	js, h, c := start(t)
	first := c.Full(t, 10)
	c.Publish(t, js, first, 0)
	h.seek(ltx.Pos{}, 0)
	h.next(first)
	follower := newHarness(t, js, func(cfg *Config) { cfg.Durable = "r2" })
	follower.seek(first.Meta.PostPos(), 0)
	m := c.Messages(c.Full(t, 10), 1<<20)[0]
	m.Data = flip(m.Data, 300)
	c.Base = c.Inject(t, js, m)
	purge(t, js, c.Base)
	c.Publish(t, js, c.Step(t, 1), 0)
	h.seek(ltx.Pos{}, 0)
	if err := h.fails(); !errors.Is(err, ErrNoBase) {
		t.Fatal(err)
	}
	isGap(t, follower.fails(), 2, 3)
	for range 3 {
		if err := h.Seek(t.Context(), ltx.Pos{}, 0); !errors.Is(err, ErrNoBase) {
			t.Fatal(err)
		}
		if err := follower.SeekBase(t.Context(), first.Meta.Max); !errors.Is(err, ErrNoBase) {
			t.Fatal(err)
		}
	}
}

// TestFullFileSentAgain: of a full file that was begun under one claim and sent again
// whole under the next, the whole one is the base.
func TestFullFileSentAgain(t *testing.T) {
	t.Parallel()
	for _, steps := range []int{1, 20} {
		for parts := 1; parts < 4; parts++ {
			t.Run(fmt.Sprint(steps, " steps, ", parts, " parts"), func(t *testing.T) {
				t.Parallel()
				js, h, c := start(t)
				c.Claim(t, js)
				c.Publish(t, js, c.Full(t, 10), 0)
				for range steps {
					c.Publish(t, js, c.Step(t, 1), 0)
				}
				after := c.Pos.TXID
				full := c.Full(t, 30)
				for _, m := range c.Messages(full, 1500)[:parts] {
					c.Inject(t, js, m)
				}
				c.Epoch = 2
				c.Claim(t, js)
				full.Meta.Epoch = 2
				publishAll(t, js, c, c.Messages(full, 1500))
				if err := h.SeekBase(t.Context(), after); err != nil {
					t.Fatal(err)
				}
				h.seek(ltx.Pos{}, 0)
				h.next(full)
			})
		}
	}
}

// TestStaleBase: a full file that a fenced publisher wrote, or that somebody sent
// again, is no base, wherever the search for one meets it.
func TestStaleBase(t *testing.T) {
	t.Parallel()
	js, h, c := start(t)
	claim := c.Claim(t, js)
	stale := c.Full(t, 5)
	c.Publish(t, js, stale, 0)
	c.Epoch, c.Writer = 2, "writer-2"
	c.Claim(t, js)
	full := c.Full(t, 5)
	c.Publish(t, js, full, 0)
	again := c.Inject(t, js, c.Messages(stale, 1<<20)[0])
	want := func(files ...streamtest.File) {
		t.Helper()
		h.seek(ltx.Pos{}, 0)
		for _, f := range files {
			h.next(f)
		}
	}
	want(full) // the stale one is the tail
	c.Inject(t, js, claimOf(t, js, claim))
	c.Inject(t, js, c.Messages(stale, 1<<20)[0])
	want(full) // it is behind its own claim, which somebody sent again
	c.Base = again
	step := c.Step(t, 1)
	c.Publish(t, js, step, 0)
	want(full, step) // the hint leads to it
	c.Base = 0
	last := c.Step(t, 1)
	c.Publish(t, js, last, 0)
	want(full, step, last) // no hint
}

func claimOf(t *testing.T, js jetstream.JetStream, seq uint64) *nats.Msg {
	t.Helper()
	s, err := js.Stream(t.Context(), "LTX")
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.GetMsg(t.Context(), seq)
	if err != nil {
		t.Fatal(err)
	}
	m.Header.Del(jetstream.ExpectedLastSubjSeqHeader)
	m.Header.Del(jetstream.ExpectedLastSubjSeqSubjHeader)
	return &nats.Msg{Subject: m.Subject, Header: m.Header}
}

// TestStaleEnd: a part of a fenced publisher's file comes late and stays at the end
// of the stream: parts in the middle are not fenced. Readers find their place, and
// their base, all the same.
func TestStaleEnd(t *testing.T) {
	t.Parallel()
	js, h, c := start(t)
	c.Claim(t, js)
	full := c.Full(t, 20)
	c.Publish(t, js, full, 0)
	old := *c
	old.Pages = slices.Clone(c.Pages)
	late := old.Messages(old.Step(t, 15), 900)[1]
	c.Epoch, c.Writer = 2, "writer-2"
	c.Claim(t, js)
	again := c.Full(t, 20)
	c.Publish(t, js, again, 0)
	one, two := c.Step(t, 1), c.Step(t, 1)
	c.Publish(t, js, one, 0)
	c.Publish(t, js, two, 0)
	h.seek(ltx.Pos{}, 0)
	for _, f := range []streamtest.File{again, one, two} {
		h.next(f)
	}
	c.Inject(t, js, late)
	h.disconnect() // up to date, and connects anew
	behind := newHarness(t, js, func(cfg *Config) { cfg.Durable = "r2" })
	behind.seek(again.Meta.PostPos(), 0) // its sequence is not known
	fresh := newHarness(t, js, func(cfg *Config) { cfg.Durable = "r3" })
	fresh.seek(ltx.Pos{}, 0)
	fresh.next(again)
	for _, r := range []*harness{behind, fresh} {
		r.next(one)
		r.next(two)
	}
	three := c.Step(t, 1)
	c.Publish(t, js, three, 0)
	for _, r := range []*harness{h, behind, fresh} {
		r.next(three)
	}
}
