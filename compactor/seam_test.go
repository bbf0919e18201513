package compactor

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/objstore/mem"
	"github.com/ltxstream/ltxstream/testenv/history"
)

// foreign puts a file as Litestream does: without any checksum of the database.
func (ar *archive) foreign(t *testing.T, level levels.Level, lo, hi ltx.TXID) {
	t.Helper()
	var inputs []Input
	for txid := lo; txid <= hi; txid++ {
		inputs = append(inputs, Input{Name: fmt.Sprint(txid), Open: func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(ar.h.File(txid))), nil
		}})
	}
	var buf bytes.Buffer
	m, err := Merge(t.Context(), &buf, inputs, MergeOptions{NoChecksums: true, Snapshot: level == levels.Snapshot})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ar.a.Put(t.Context(), "app", fileWith(level, m), &buf, nil); err != nil {
		t.Fatal(err)
	}
}

// leave makes an archive as Litestream leaves it: levels 1 to 3, a snapshot, and at
// level 0 what level 1 has not got yet, with some that it has.
func (ar *archive) leave(t *testing.T, rng *rand.Rand) {
	t.Helper()
	end := ar.h.Len()
	of := map[levels.Level][]ltx.TXID{} // ends
	for txid := ltx.TXID(1); txid < end-3; txid++ {
		if rng.IntN(3) > 0 {
			continue
		}
		of[1] = append(of[1], txid)
		for level := levels.Level(2); level <= 3 && rng.IntN(3) == 0; level++ {
			of[level] = append(of[level], txid)
		}
	}
	for level, ends := range of {
		lo := ltx.TXID(1)
		for _, hi := range ends {
			ar.foreign(t, level, lo, hi)
			lo = hi + 1
			if level == levels.First {
				ar.points = append(ar.points, hi)
			}
		}
	}
	merged := of[1][len(of[1])-1]
	for txid := max(1, merged-2); txid <= end; txid++ {
		ar.foreign(t, levels.Stream, txid, txid)
		if txid > merged {
			ar.points = append(ar.points, txid)
		}
	}
	ar.foreign(t, levels.Snapshot, 1, 1+ltx.TXID(rng.Int64N(int64(end-2))))
}

// base makes the next transaction a whole file, as a publisher does that continues
// somebody else's archive.
func (ar *archive) base(t *testing.T) {
	t.Helper()
	ar.h.Grow(t, 1)
	full := ar.h.Full(t)
	if _, _, err := ar.c.StoreBase(t.Context(), []Input{{Name: "full", Open: func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(full)), nil
	}}}, int64(len(full))); err != nil {
		t.Fatal(err)
	}
	ar.done = ar.h.Len()
	ar.points = append(ar.points, ar.done)
}

// TestContinuedArchive: behind files of Litestream's, after every merge, snapshot
// and deletion, every point of theirs and ours that is promised restores to exactly
// what the database was; in the end nothing of theirs is left.
func TestContinuedArchive(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 99))
			store := mem.New()
			ar := &archive{h: history.New(t, history.Config{Seed: seed, PageSize: 1024, MaxBlob: 3000}), store: store, a: levels.New(store, levels.Decimal)}
			ar.cfg = Config{
				Archive: ar.a, DB: "app", SpillDir: t.TempDir(),
				Schedule:    Schedule{Windows: []time.Duration{20 * time.Second, time.Minute}, Snapshot: 90 * time.Second},
				Policy:      Policy{Window: 2 * time.Minute, Last: 1},
				Logger:      slog.New(slog.DiscardHandler),
				NoChecksums: seed == 3,
			}
			ar.h.Grow(t, 20)
			ar.leave(t, rng)
			last := ar.h.Len()
			ar.reopen(t)
			if end := ar.c.End(); end.Max != last || end.Level != levels.Stream || !end.Timestamp.Equal(ar.h.Last().Time) {
				t.Fatalf("the archive ends with %v of %s", end, end.Timestamp)
			}
			ar.settle(t, rng) // before anything of ours is there
			ar.base(t)
			for _, p := range ar.points {
				ar.check(t, p)
			}
			for round := range 24 {
				ar.settle(t, rng)
				if round%7 == 3 {
					ar.reopen(t)
				}
				ar.h.Grow(t, 1+rng.IntN(4))
				ar.flush(t)
			}
			for range 4 { // until nothing of theirs is inside the window
				ar.h.Skip(2 * time.Minute)
				ar.h.Grow(t, 1)
				ar.flush(t)
				ar.settle(t, rng)
			}
			if err := ar.c.Lost(); err != nil {
				t.Error(err)
			}
			for _, f := range ar.c.Inventory().all() {
				if f.Level != levels.Snapshot && f.Max <= last {
					t.Errorf("%v is still there", f)
				}
			}
		})
	}
}

// settle does all that is due by the history's clock, and checks some points after
// each step.
func (ar *archive) settle(t *testing.T, rng *rand.Rand) {
	t.Helper()
	now := ar.h.Last().Time
	for did := true; did; {
		var err error
		if did, err = ar.c.Step(t.Context(), now); err != nil {
			t.Fatal(err)
		}
		points := ar.promised(now)
		for range 2 {
			ar.check(t, points[rng.IntN(len(points))])
		}
	}
	if _, err := ar.c.Prune(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	points := ar.promised(now)
	for range 2 {
		ar.check(t, points[rng.IntN(len(points))])
	}
}
