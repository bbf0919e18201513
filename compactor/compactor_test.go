package compactor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/objstore/mem"
	"github.com/ltxstream/ltxstream/objstore/objstoretest"
	"github.com/ltxstream/ltxstream/restore"
	"github.com/ltxstream/ltxstream/testenv/history"
)

// flaky is a store whose calls fail now and then, at random, before or after
// they did what was asked.
type flaky struct {
	objstore.Store
	rng  *rand.Rand // of one goroutine: the test's, and merges read in it too
	rate float64
}

var errFlaky = errors.New("flaky store")

func (f *flaky) Put(ctx context.Context, key string, r io.Reader, opts objstore.PutOptions) (objstore.Info, error) {
	p := f.rng.Float64()
	if p < f.rate/2 {
		return objstore.Info{}, errFlaky
	}
	info, err := f.Store.Put(ctx, key, r, opts)
	if p < f.rate {
		return objstore.Info{}, errors.Join(err, errFlaky) // the answer got lost
	}
	return info, err
}

func (f *flaky) Delete(ctx context.Context, keys ...string) error {
	if f.rng.Float64() < f.rate && len(keys) > 1 {
		return errors.Join(f.Store.Delete(ctx, keys[:len(keys)/2]...), errFlaky)
	}
	return f.Store.Delete(ctx, keys...)
}

// archive drives a Compactor by a history's own clock.
type archive struct {
	h      *history.History
	store  objstore.Store
	a      *levels.Archive
	cfg    Config
	c      *Compactor
	points []ltx.TXID // ends of level-1 files
	done   ltx.TXID
	tells  *objstoretest.Rot // the store, where it finds damage by itself
}

func (ar *archive) reopen(t *testing.T) {
	t.Helper()
	c, err := New(t.Context(), ar.cfg)
	if err != nil {
		t.Fatal(err)
	}
	ar.c = c
}

// flush archives everything up to the newest transaction.
func (ar *archive) flush(t *testing.T) {
	t.Helper()
	var inputs []Input
	for txid := ar.done + 1; txid <= ar.h.Len(); txid++ {
		inputs = append(inputs, Input{Name: fmt.Sprint(txid), Open: func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(ar.h.File(txid))), nil
		}})
	}
	for {
		_, _, err := ar.c.StoreFirst(t.Context(), inputs, 0)
		if err == nil {
			break
		}
		if !errors.Is(err, errFlaky) {
			t.Fatal(err)
		}
	}
	ar.done = ar.h.Len()
	ar.points = append(ar.points, ar.done)
}

// promised are the points that the policy keeps at a time.
func (ar *archive) promised(now time.Time) (points []ltx.TXID) {
	for _, p := range ar.points {
		if !ar.h.State(p).Time.Before(now.Add(-ar.cfg.Policy.Window)) {
			points = append(points, p)
		}
	}
	for f := range Keep(ar.c.Inventory(), ar.cfg.Policy, now).Reasons {
		points = append(points, f.Max)
	}
	return points
}

func (ar *archive) check(t *testing.T, txid ltx.TXID) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "out.db")
	_, err := restore.Restore(t.Context(), restore.Config{Sources: []restore.Source{restore.Of(ar.a, "app")}, Target: restore.Target{TXID: txid}, Path: path})
	if err := errors.Join(err, ar.h.Check(path, txid)); err != nil {
		t.Fatalf("point %s: %v; archive: %s", txid, err, text(ar.c.Inventory().all()))
	}
}

// TestEveryPromisedPoint: after every merge, snapshot and deletion, with calls
// that fail and restarts in between, every point that is promised restores to
// exactly what the database was.
func TestEveryPromisedPoint(t *testing.T) {
	t.Parallel()
	for _, seed := range []uint64{1, 2, 3, 4} {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 77))
			store := &flaky{Store: mem.New(), rng: rng, rate: 0.1}
			ar := &archive{h: history.New(t, history.Config{Seed: seed, PageSize: 1024, MaxBlob: 3000}), store: store, a: levels.New(store, levels.Decimal)}
			ar.cfg = Config{
				Archive: ar.a, DB: "app", SpillDir: t.TempDir(),
				Schedule:    Schedule{Windows: []time.Duration{20 * time.Second, time.Minute}, Snapshot: 90 * time.Second},
				Policy:      Policy{Window: 2 * time.Minute, Last: 2, Hourly: 2},
				Logger:      slog.New(slog.DiscardHandler),
				NoChecksums: seed == 4,
			}
			ar.reopen(t)
			steps, deleted := 0, 0
			for range 40 {
				ar.h.Grow(t, 1+rng.IntN(4))
				ar.flush(t)
				now := ar.h.Last().Time
				for {
					ar.c.pruned = time.Time{} // ask the policy each time
					before := len(ar.c.Inventory().all())
					did, err := ar.c.Step(t.Context(), now)
					if err != nil && !errors.Is(err, errFlaky) {
						t.Fatal(err)
					}
					if after := len(ar.c.Inventory().all()); after < before {
						deleted += before - after
					}
					if rng.IntN(10) == 0 {
						ar.reopen(t)
					}
					steps++
					points := ar.promised(now)
					for range 2 {
						ar.check(t, points[rng.IntN(len(points))])
					}
					if !did && err == nil {
						break
					}
				}
			}
			for _, p := range ar.promised(ar.h.Last().Time) {
				ar.check(t, p)
			}
			if n := len(ar.c.Inventory().all()); deleted < 15 || n > 80 {
				t.Errorf("%d files deleted, %d left: nothing was pruned", deleted, n)
			}
			t.Logf("%d steps, %d files deleted, %d left", steps, deleted, len(ar.c.Inventory().all()))
		})
	}
}

// spoil flips a bit of a stored file, or lets the store itself say that one is.
func (ar *archive) spoil(t *testing.T, f levels.File) {
	t.Helper()
	key := ar.a.Key("app", f)
	if ar.tells != nil {
		ar.tells.Spoil(key, f.Size-ltx.TrailerSize-3)
		return
	}
	b, err := objstore.ReadAll(t.Context(), ar.store, key)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-ltx.TrailerSize-3] ^= 0x10 // page index: no pages of other files help
	if _, err := ar.store.Put(t.Context(), key, bytes.NewReader(b), objstore.PutOptions{Timestamp: f.Timestamp}); err != nil {
		t.Fatal(err)
	}
}

func newArchive(t *testing.T, seed uint64) *archive {
	t.Helper()
	store := mem.New()
	ar := &archive{h: history.New(t, history.Config{Seed: seed, PageSize: 1024, MaxBlob: 3000}), store: store, a: levels.New(store, levels.Decimal)}
	ar.cfg = Config{Archive: ar.a, DB: "app", SpillDir: t.TempDir(), Schedule: Schedule{Windows: []time.Duration{time.Hour}, Snapshot: time.Hour}, Logger: slog.New(slog.DiscardHandler)}
	ar.reopen(t)
	return ar
}

// TestDamageIsNotPassedOn: a damaged file is not merged into others; an older
// snapshot and a longer chain make the next snapshot; nothing is deleted on the
// strength of a snapshot that is damaged.
func TestDamageIsNotPassedOn(t *testing.T) {
	t.Parallel()
	t.Run("found by us", func(t *testing.T) {
		t.Parallel()
		testDamageIsNotPassedOn(t, newArchive(t, 21))
	})
	t.Run("found by the store", func(t *testing.T) {
		t.Parallel()
		ar := newArchive(t, 21)
		ar.tells = &objstoretest.Rot{Store: ar.store}
		ar.store, ar.a = ar.tells, levels.New(ar.tells, levels.Decimal)
		ar.cfg.Archive = ar.a
		ar.reopen(t)
		testDamageIsNotPassedOn(t, ar)
	})
}

func testDamageIsNotPassedOn(t *testing.T, ar *archive) {
	t.Helper()
	for range 10 {
		ar.h.Grow(t, 2)
		ar.flush(t)
	}
	later := ar.h.Last().Time.Add(2 * time.Hour)
	step := func(now time.Time) {
		t.Helper()
		for {
			did, err := ar.c.Step(t.Context(), now)
			if err != nil {
				t.Fatal(err)
			}
			if !did {
				return
			}
		}
	}
	step(later) // level 2 and a snapshot
	snapshot := ar.c.Inventory().newestSnapshot()
	if snapshot.Max != 20 {
		t.Fatalf("snapshot %s", snapshot)
	}
	ar.spoil(t, snapshot)
	ar.h.Skip(10 * time.Minute)
	ar.h.Grow(t, 1)
	ar.flush(t)
	ar.cfg.Policy = Policy{Window: time.Minute}
	ar.reopen(t)
	if _, err := ar.c.Prune(t.Context(), later); err == nil {
		t.Fatal("pruned on the strength of a damaged snapshot")
	}
	ar.check(t, 20)
	ar.h.Skip(2 * time.Hour)
	ar.h.Grow(t, 2)
	ar.flush(t)
	ar.cfg.Policy = Policy{}
	ar.reopen(t)
	step(ar.h.Last().Time.Add(2 * time.Hour))
	if got := ar.c.Inventory().newestSnapshot(); got.Max != 23 {
		t.Fatalf("no snapshot around the damaged one: %s", got)
	}
	if _, err := Inspect(t.Context(), ar.a, "app", ar.c.Inventory().newestSnapshot()); err != nil {
		t.Fatal(err)
	}
	if ar.c.Lost() != nil {
		t.Fatalf("lost: %v", ar.c.Lost())
	}
	// a file of level 1 that nothing replaces
	ar.h.Skip(2 * time.Hour)
	for range 4 {
		ar.h.Grow(t, 1)
		ar.flush(t)
	}
	ar.spoil(t, ar.c.Inventory().Level(levels.First)[12])
	step(ar.h.Last().Time.Add(2 * time.Hour))
	if ar.c.Lost() == nil {
		t.Fatal("the archive cannot go on, and does not say so")
	}
	// a whole file of the database ends it
	inputs := inputsOf(ar.h.Full(t))
	if _, _, err := ar.c.StoreBase(t.Context(), inputs, 0); err != nil {
		t.Fatal(err)
	}
	if ar.c.Lost() != nil {
		t.Fatal(ar.c.Lost())
	}
	ar.check(t, ar.h.Len())
}

// TestAlarmOfPrune: what kept old files from being deleted is told until they are.
func TestAlarmOfPrune(t *testing.T) {
	t.Parallel()
	ar := newArchive(t, 25)
	for range 5 {
		ar.h.Grow(t, 2)
		ar.flush(t)
	}
	step := func(now time.Time) (failed error) {
		for did := true; did && failed == nil; {
			did, failed = ar.c.Step(t.Context(), now)
		}
		return failed
	}
	if err := step(ar.h.Last().Time); err != nil {
		t.Fatal(err)
	}
	ar.spoil(t, ar.c.Inventory().newestSnapshot())
	ar.h.Skip(10 * time.Minute)
	ar.h.Grow(t, 1)
	ar.flush(t)
	ar.cfg.Policy = Policy{Window: time.Minute}
	ar.reopen(t)
	now := ar.h.Last().Time
	if err := step(now); err == nil || ar.c.Alarm() == nil {
		t.Fatalf("pruned on the strength of a damaged snapshot: %v, %v", err, ar.c.Alarm())
	}
	if err := step(now); err != nil || ar.c.Alarm() == nil || ar.c.Lost() != nil {
		t.Fatalf("%v, %v, %v", err, ar.c.Alarm(), ar.c.Lost())
	}
	if err := step(now.Add(pruneEvery)); err != nil || ar.c.Alarm() != nil {
		t.Fatalf("%v, %v", err, ar.c.Alarm())
	}
	ar.check(t, 11)
}

// TestStoreTwice: a file that is there already and holds the same is taken for
// done; a damaged one is replaced; another history is refused.
func TestStoreTwice(t *testing.T) {
	t.Parallel()
	for _, total := range []int64{0, inMemory + 1} { // at once, and streamed
		ar := newArchive(t, 22)
		ar.h.Grow(t, 5)
		inputs := inputsOf(files(ar.h, 1, 5)...)
		cfg := StoreConfig{Archive: ar.a, DB: "app"}
		for range 2 {
			if _, _, err := Store(t.Context(), cfg, levels.First, inputs, total); err != nil {
				t.Fatal(err)
			}
		}
		ar.spoil(t, levels.File{Level: levels.First, Min: 1, Max: 5, Timestamp: ar.h.Last().Time})
		if _, _, err := Store(t.Context(), cfg, levels.First, inputs, total); err != nil {
			t.Fatalf("over a damaged file: %v", err)
		}
		ar.check(t, 5)
		other := history.New(t, history.Config{Seed: 23, PageSize: 1024})
		other.Grow(t, 5)
		if _, _, err := Store(t.Context(), cfg, levels.First, inputsOf(files(other, 1, 5)...), total); !errors.Is(err, ErrOtherHistory) {
			t.Fatalf("another history: %v", err)
		}
		ar.check(t, 5)
	}
}

// lossy stores something else than it is given.
type lossy struct{ objstore.Store }

func (l lossy) Put(ctx context.Context, key string, r io.Reader, opts objstore.PutOptions) (objstore.Info, error) {
	b, err := io.ReadAll(r)
	if err != nil {
		return objstore.Info{}, err
	}
	b[len(b)/2] ^= 1
	return l.Store.Put(ctx, key, bytes.NewReader(b), opts)
}

// once is a store that loses a piece of the first object it is given.
type once struct {
	*objstoretest.Rot
	puts int
}

func (o *once) Put(ctx context.Context, key string, r io.Reader, opts objstore.PutOptions) (objstore.Info, error) {
	info, err := o.Rot.Put(ctx, key, r, opts)
	if o.puts++; o.puts == 1 {
		o.Spoil(key, info.Size/2)
	}
	return info, err
}

// TestReadBackReplaces: what the store says is damaged is put again.
func TestReadBackReplaces(t *testing.T) {
	t.Parallel()
	h := history.New(t, history.Config{Seed: 25})
	h.Grow(t, 5)
	for _, total := range []int64{0, inMemory + 1} {
		store := &once{Rot: &objstoretest.Rot{Store: mem.New()}}
		a := levels.New(store, levels.Decimal)
		f, _, err := Store(t.Context(), StoreConfig{Archive: a, DB: "app"}, levels.First, inputsOf(files(h, 1, 5)...), total)
		if err != nil || store.puts != 2 {
			t.Fatalf("put %d times, %v", store.puts, err)
		}
		if _, err := Inspect(t.Context(), a, "app", f); err != nil {
			t.Error(err)
		}
	}
}

// TestReadBack: what a store changed on its way is never taken for stored.
func TestReadBack(t *testing.T) {
	t.Parallel()
	h := history.New(t, history.Config{Seed: 24})
	h.Grow(t, 5)
	for _, total := range []int64{0, inMemory + 1} {
		a := levels.New(lossy{mem.New()}, levels.Decimal)
		_, _, err := Store(t.Context(), StoreConfig{Archive: a, DB: "app"}, levels.First, inputsOf(files(h, 1, 5)...), total)
		if _, ok := errors.AsType[*levels.DamageError](err); !ok {
			t.Errorf("%v, want a DamageError", err)
		}
	}
}
