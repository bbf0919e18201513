package restore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/compactor"
	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/objstore/mem"
	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/history"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

// world is a history and an archive of it.
type world struct {
	h     *history.History
	store *mem.Store
	a     *levels.Archive
}

func newWorld(t *testing.T, cfg history.Config, n int) *world {
	t.Helper()
	w := &world{h: history.New(t, cfg), store: mem.New()}
	w.a = levels.New(w.store, levels.Decimal)
	w.h.Grow(t, n)
	return w
}

// put archives a range at a level.
func (w *world) put(t *testing.T, level levels.Level, lo, hi ltx.TXID) {
	t.Helper()
	var inputs []compactor.Input
	for txid := lo; txid <= hi; txid++ {
		inputs = append(inputs, compactor.Input{Name: fmt.Sprint(txid), Open: func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(w.h.File(txid))), nil
		}})
	}
	var buf bytes.Buffer
	m, err := compactor.Merge(t.Context(), &buf, inputs, compactor.MergeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.a.Put(t.Context(), "app", levels.File{Level: level, Min: lo, Max: hi, Timestamp: m.Timestamp()}, &buf, nil); err != nil {
		t.Fatal(err)
	}
}

// fill archives everything: level 1 by random groups, level 2 over those, a
// snapshot here and there. It returns the points that level 1 keeps.
func (w *world) fill(t *testing.T, rng *rand.Rand) (points []ltx.TXID) {
	t.Helper()
	var group []ltx.TXID
	begin := ltx.TXID(1)
	for lo := ltx.TXID(1); lo <= w.h.Len(); {
		hi := min(lo+ltx.TXID(rng.IntN(4)), w.h.Len())
		w.put(t, levels.First, lo, hi)
		points = append(points, hi)
		if group = append(group, hi); len(group) == 5 {
			w.put(t, 2, begin, hi)
			if rng.IntN(2) == 0 {
				w.put(t, levels.Snapshot, 1, hi)
			}
			group, begin = nil, hi+1
		}
		lo = hi + 1
	}
	return points
}

func (w *world) restore(t *testing.T, target Target, more ...Source) (string, *Job, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "out.db")
	job, err := Restore(t.Context(), Config{Sources: append([]Source{Of(w.a, "app")}, more...), Target: target, Path: path, OnTrouble: func(err error) { t.Log(err) }})
	if err == nil {
		left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".*"))
		if len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
	return path, job, err
}

// TestEveryPoint: each point that level 1 keeps, by TXID and by time, is what
// the oracle recorded.
func TestEveryPoint(t *testing.T) {
	t.Parallel()
	for _, size := range []int{512, 4096, 65536} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, history.Config{Seed: uint64(size), PageSize: size}, 60)
			points := w.fill(t, rand.New(rand.NewPCG(uint64(size), 2)))
			for _, txid := range points {
				path, _, err := w.restore(t, Target{TXID: txid})
				if err := errors.Join(err, w.h.Check(path, txid)); err != nil {
					t.Fatal(err)
				}
				for _, d := range []time.Duration{0, time.Millisecond, -time.Millisecond} {
					when := w.h.State(txid).Time.Add(d)
					want := newestPoint(w.h, points, when)
					path, job, err := w.restore(t, Target{Time: when})
					if want == 0 {
						if _, ok := errors.AsType[*TimeError](err); !ok {
							t.Fatalf("%s is before all points: %v", when, err)
						}
						continue
					}
					if err := errors.Join(err, w.h.Check(path, want)); err != nil {
						t.Fatalf("at %s: %v", when, err)
					}
					if job.Header.Timestamp > when.UnixMilli() {
						t.Fatalf("asked for %s, got a state of %s", when, TimeOf(job.Header))
					}
				}
			}
			path, _, err := w.restore(t, Target{})
			if err := errors.Join(err, w.h.Check(path, w.h.Len())); err != nil {
				t.Fatal(err)
			}
			var answer string
			if err := testenv.OpenDB(t, path, sqlconn.Options{}).QueryRow("PRAGMA integrity_check").Scan(&answer); err != nil || answer != "ok" {
				t.Fatalf("integrity check: %q, %v", answer, err)
			}
		})
	}
}

func newestPoint(h *history.History, points []ltx.TXID, when time.Time) (found ltx.TXID) {
	for _, p := range points {
		if !h.State(p).Time.After(when) {
			found = p
		}
	}
	return found
}

// TestTail: what the archive lacks still, a second source has.
func TestTail(t *testing.T) {
	t.Parallel()
	w := newWorld(t, history.Config{Seed: 3}, 30)
	w.put(t, levels.Snapshot, 1, 10)
	w.put(t, levels.First, 11, 20)
	tail := &world{h: w.h, store: mem.New()}
	tail.a = levels.New(tail.store, levels.Decimal)
	for txid := ltx.TXID(18); txid <= 30; txid++ {
		tail.put(t, levels.Stream, txid, txid)
	}
	path, job, err := w.restore(t, Target{}, Of(tail.a, "app"))
	if err := errors.Join(err, w.h.Check(path, 30)); err != nil {
		t.Fatal(err)
	}
	if len(job.Plan) != 12 {
		t.Errorf("plan %s", text(job.Plan))
	}
	path, _, err = w.restore(t, Target{Time: w.h.State(25).Time}, Of(tail.a, "app"))
	if err := errors.Join(err, w.h.Check(path, w.h.At(w.h.State(25).Time).Pos.TXID)); err != nil {
		t.Fatal(err)
	}
}

// counting counts requests and bytes, and can fail at one of them.
type counting struct {
	objstore.Store
	requests, bytes atomic.Int64
	failAt          int64
	err             error
}

func (c *counting) Get(ctx context.Context, key string, offset, size int64) (io.ReadCloser, error) {
	if n := c.requests.Add(1); n == c.failAt {
		return nil, c.err
	}
	c.bytes.Add(max(size, 0))
	return c.Store.Get(ctx, key, offset, size)
}

// TestBytesFetched: not more than the winning pages and two per cent.
func TestBytesFetched(t *testing.T) {
	t.Parallel()
	w := newWorld(t, history.Config{Seed: 7, MaxBlob: 200_000}, 80)
	w.put(t, levels.Snapshot, 1, 60)
	for txid := ltx.TXID(61); txid <= 80; txid++ {
		w.put(t, levels.First, txid, txid)
	}
	store := &counting{Store: w.store}
	catalog, err := Read(t.Context(), Of(levels.New(store, levels.Decimal), "app"))
	if err != nil {
		t.Fatal(err)
	}
	job, err := catalog.Prepare(t.Context(), 80, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var winning int64
	for _, s := range job.segments {
		for _, e := range s.pages {
			winning += e.Size
		}
	}
	if limit := winning + winning/50; job.Bytes > limit {
		t.Errorf("%d bytes to fetch, the pages have %d", job.Bytes, winning)
	}
	store.bytes.Store(0)
	store.requests.Store(0)
	path := filepath.Join(t.TempDir(), "out.db")
	if err := job.Run(t.Context(), path, false, nil); err != nil {
		t.Fatal(err)
	}
	if store.bytes.Load() != job.Bytes || store.requests.Load() != job.Requests {
		t.Errorf("fetched %d bytes by %d requests, the plan said %d by %d", store.bytes.Load(), store.requests.Load(), job.Bytes, job.Requests)
	}
	if err := w.h.Check(path, 80); err != nil {
		t.Error(err)
	}
}

// TestWithoutChecksums: files of Litestream, which bear no checksum of the
// database: each proves itself, read once and whole.
func TestWithoutChecksums(t *testing.T) {
	t.Parallel()
	w := newWorld(t, history.Config{Seed: 15, NoChecksums: true, MaxBlob: 100_000}, 40)
	w.put(t, levels.Snapshot, 1, 10)
	for txid := ltx.TXID(11); txid <= 40; txid++ {
		w.put(t, levels.First, txid, txid)
	}
	path, job, err := w.restore(t, Target{})
	if err := errors.Join(err, w.h.Check(path, 40)); err != nil {
		t.Fatal(err)
	}
	var size int64
	for _, f := range job.Plan {
		size += f.Size
	}
	if job.Bytes > size {
		t.Errorf("%d bytes are read of %d", job.Bytes, size)
	}

	// Cut short, it goes on, and trusts nothing of the first part.
	store := &counting{Store: w.store, err: errors.New("the line broke")}
	path = filepath.Join(t.TempDir(), "out.db")
	for _, want := range []error{store.err, nil} {
		store.failAt = 0
		catalog, err := Read(t.Context(), Of(levels.New(store, levels.Decimal), "app"))
		if err != nil {
			t.Fatal(err)
		}
		job, err := catalog.Prepare(t.Context(), 40, Options{Parallelism: 1})
		if err != nil {
			t.Fatal(err)
		}
		store.requests.Store(0)
		if want != nil {
			store.failAt = job.Requests / 2
		}
		if err := job.Run(t.Context(), path, false, nil); !errors.Is(err, want) {
			t.Fatalf("%v, want %v", err, want)
		}
	}
	if err := w.h.Check(path, 40); err != nil {
		t.Fatal(err)
	}

	for name, at := range map[string]int{"page index": ltx.TrailerSize + 30, "file checksum": 1} {
		f := levels.File{Level: levels.First, Min: 25, Max: 25}
		change := func(b []byte) []byte { b[len(b)-at] ^= 4; return b }
		w.spoil(t, f, change)
		path := filepath.Join(t.TempDir(), "out.db")
		_, err := Restore(t.Context(), Config{Sources: []Source{Of(w.a, "app")}, Path: path})
		if _, ok := errors.AsType[*DamageError](err); !ok {
			t.Errorf("%s: %v, want a DamageError", name, err)
		}
		if left, _ := os.ReadDir(filepath.Dir(path)); len(left) > 0 {
			t.Errorf("%s: left behind: %v", name, left)
		}
		w.spoil(t, f, change)
	}
}
