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
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/compactor"
	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/objstore/mem"
	"github.com/ltxstream/ltxstream/objstore/objstoretest"
	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/app"
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

// spoil changes a stored object.
func (w *world) spoil(t *testing.T, f levels.File, change func([]byte) []byte) {
	t.Helper()
	key := w.a.Key("app", f)
	b, err := objstore.ReadAll(t.Context(), w.store, key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Put(t.Context(), key, bytes.NewReader(change(bytes.Clone(b))), objstore.PutOptions{Timestamp: time.Now()}); err != nil {
		t.Fatal(err)
	}
}

// TestDamageIsPassedOver: wherever the newest snapshot is damaged, an older one
// and a longer chain lead to the same state; where nothing does, it is an error
// and there is no output.
func TestDamageIsPassedOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t, history.Config{Seed: 4, PageSize: 1024, MaxBlob: 2000}, 20)
	for txid := ltx.TXID(1); txid <= 20; txid++ {
		w.put(t, levels.First, txid, txid)
	}
	w.put(t, levels.Snapshot, 1, 5)
	rng := rand.New(rand.NewPCG(4, 4))
	snapshot := levels.File{Level: levels.Snapshot, Min: 1, Max: 15}
	for round := range 60 {
		if err := w.a.Delete(t.Context(), "app", []levels.File{snapshot}); err != nil {
			t.Fatal(err)
		}
		w.put(t, levels.Snapshot, 1, 15)
		w.spoil(t, snapshot, func(b []byte) []byte {
			switch round {
			case 0:
				return b[:len(b)-1]
			case 1:
				return append(b, 0)
			case 2:
				return nil
			case 3:
				return []byte("something else altogether")
			}
			b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
			return b
		})
		path, _, err := w.restore(t, Target{TXID: 18})
		if err := errors.Join(err, w.h.Check(path, 18)); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
	// now the only way
	last := levels.File{Level: levels.First, Min: 18, Max: 18}
	w.spoil(t, last, func(b []byte) []byte { b[len(b)/2] ^= 0x40; b[ltx.HeaderSize+12] ^= 0xff; return b })
	path, _, err := w.restore(t, Target{TXID: 18})
	damage, ok := errors.AsType[*DamageError](err)
	if !ok || damage.Key != w.a.Key("app", last) {
		t.Fatalf("%v, want a DamageError about %s", err, w.a.Key("app", last))
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestDamageThatTheStoreFinds: the same where the store itself says that a file is
// damaged.
func TestDamageThatTheStoreFinds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, history.Config{Seed: 4, PageSize: 1024, MaxBlob: 2000}, 20)
	rot := &objstoretest.Rot{Store: w.store}
	w.a = levels.New(rot, levels.Decimal)
	for txid := ltx.TXID(1); txid <= 20; txid++ {
		w.put(t, levels.First, txid, txid)
	}
	w.put(t, levels.Snapshot, 1, 5)
	w.put(t, levels.Snapshot, 1, 15)
	snapshot := w.a.Key("app", levels.File{Level: levels.Snapshot, Min: 1, Max: 15})
	info, err := w.store.Stat(t.Context(), snapshot)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(5, 5))
	for range 20 {
		at := rng.Int64N(info.Size)
		rot.Spoil(snapshot, at)
		path, _, err := w.restore(t, Target{TXID: 18})
		if err := errors.Join(err, w.h.Check(path, 18)); err != nil {
			t.Fatalf("byte %d: %v", at, err)
		}
	}
	last := w.a.Key("app", levels.File{Level: levels.First, Min: 18, Max: 18})
	rot.Spoil(last, 50)
	_, _, err = w.restore(t, Target{TXID: 18})
	if damage, ok := errors.AsType[*DamageError](err); !ok || damage.Key != last {
		t.Fatalf("%v, want a DamageError about %s", err, last)
	}
}

// TestTimeOfDamagedFile: a file whose header is damaged does not tell when it
// was. Another that ends with the same transaction does; without one it is an
// error, never an older state.
func TestTimeOfDamagedFile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, history.Config{Seed: 8}, 20)
	for txid := ltx.TXID(1); txid <= 20; txid++ {
		w.put(t, levels.First, txid, txid)
	}
	w.put(t, 2, 1, 5)
	w.put(t, 2, 6, 10)
	broken := func(level levels.Level, lo, hi ltx.TXID) string {
		f := levels.File{Level: level, Min: lo, Max: hi}
		w.spoil(t, f, func(b []byte) []byte { b[0] ^= 0xff; return b })
		return w.a.Key("app", f)
	}
	broken(levels.First, 10, 10)
	for _, txid := range []ltx.TXID{9, 10, 11} {
		when := w.h.State(txid).Time
		path, _, err := w.restore(t, Target{Time: when})
		if err := errors.Join(err, w.h.Check(path, w.h.At(when).Pos.TXID)); err != nil {
			t.Fatalf("at TXID %s: %v", txid, err)
		}
	}
	alone := broken(levels.First, 15, 15)
	_, _, err := w.restore(t, Target{Time: w.h.State(15).Time})
	if damage, ok := errors.AsType[*levels.DamageError](err); !ok || damage.Key != alone {
		t.Fatalf("%v, want a DamageError about %s", err, alone)
	}
	broken(2, 6, 10) // both that end with 10
	_, _, err = w.restore(t, Target{Time: w.h.State(10).Time})
	if _, ok := errors.AsType[*levels.DamageError](err); !ok {
		t.Fatalf("%v, want a DamageError", err)
	}
}

// TestOtherHistory: files of two databases under one prefix never mix.
func TestOtherHistory(t *testing.T) {
	t.Parallel()
	w := newWorld(t, history.Config{Seed: 5}, 10)
	other := &world{h: history.New(t, history.Config{Seed: 6}), store: w.store, a: w.a}
	other.h.Grow(t, 10)
	w.put(t, levels.Snapshot, 1, 5)
	other.put(t, levels.First, 6, 7)
	_, _, err := w.restore(t, Target{})
	if _, ok := errors.AsType[*ChainError](err); !ok {
		t.Fatalf("%v, want a ChainError", err)
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

// TestResume: cut short at each request in turn, the next run goes on and
// fetches only the rest.
func TestResume(t *testing.T) {
	t.Parallel()
	w := newWorld(t, history.Config{Seed: 8, MaxBlob: 100_000}, 60)
	for txid := ltx.TXID(1); txid <= 60; txid++ {
		w.put(t, levels.First, txid, txid)
	}
	broken := errors.New("the line broke")
	path := filepath.Join(t.TempDir(), "out.db")
	for round := int64(1); ; round++ {
		store := &counting{Store: w.store}
		catalog, err := Read(t.Context(), Of(levels.New(store, levels.Decimal), "app"))
		if err != nil {
			t.Fatal(err)
		}
		job, err := catalog.Prepare(t.Context(), 60, Options{Parallelism: 1})
		if err != nil {
			t.Fatal(err)
		}
		if job.Requests < 10 {
			t.Fatalf("only %d requests", job.Requests)
		}
		store.requests.Store(0)
		store.failAt, store.err = 4, broken
		err = job.Run(t.Context(), path, false, nil)
		if err == nil {
			if want := job.Requests - 3*(round-1); store.requests.Load() != want {
				t.Errorf("the last run made %d requests, want %d", store.requests.Load(), want)
			}
			break
		}
		if !errors.Is(err, broken) {
			t.Fatal(err)
		}
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Fatal("an unfinished output has the final name")
		}
	}
	if err := w.h.Check(path, 60); err != nil {
		t.Fatal(err)
	}
}

// TestResumeDistrusts: what lies there of an earlier run is verified, and begun
// anew when it is wrong.
func TestResumeDistrusts(t *testing.T) {
	t.Parallel()
	for _, checksums := range []bool{true, false} {
		t.Run(fmt.Sprint("checksums ", checksums), func(t *testing.T) { t.Parallel(); resumeDistrusts(t, !checksums) })
	}
}

func resumeDistrusts(t *testing.T, without bool) {
	w := newWorld(t, history.Config{Seed: 9, NoChecksums: without}, 40)
	for txid := ltx.TXID(1); txid <= 40; txid++ {
		w.put(t, levels.First, txid, txid)
	}
	all := &counting{Store: w.store}
	if _, err := Restore(t.Context(), Config{Sources: []Source{Of(levels.New(all, levels.Decimal), "app")}, Path: filepath.Join(t.TempDir(), "out.db")}); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(part, log string) error{
		"page changed":   func(part, log string) error { return patch(part, 5000) },
		"log of another": func(part, log string) error { return os.WriteFile(log, []byte("other\n1.\n2.\n"), 0o644) },
		"log of garbage": func(part, log string) error { return os.WriteFile(log, []byte{0, 1, 2, '\n', '7'}, 0o644) },
		"shorter":        func(part, log string) error { return os.Truncate(part, 1000) },
		"nothing there":  func(part, log string) error { return os.Remove(part) },
	} {
		path := filepath.Join(t.TempDir(), "out.db")
		store := &counting{Store: w.store, failAt: all.requests.Load() - 2, err: errors.New("broke")}
		cfg := Config{Sources: []Source{Of(levels.New(store, levels.Decimal), "app")}, Path: path, Options: Options{Parallelism: 1}}
		if _, err := Restore(t.Context(), cfg); !errors.Is(err, store.err) {
			t.Fatal(err)
		}
		part, log := filepath.Join(filepath.Dir(path), ".out.db.restore"), filepath.Join(filepath.Dir(path), ".out.db.restore-log")
		if err := spoil(part, log); err != nil {
			t.Fatal(err)
		}
		store.failAt = 0
		if _, err := Restore(t.Context(), cfg); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := w.h.Check(path, 40); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func patch(path string, at int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	var b [1]byte
	_, err = f.ReadAt(b[:], at)
	b[0] ^= 1
	_, err2 := f.WriteAt(b[:], at)
	return errors.Join(err, err2, f.Close())
}

func TestOutput(t *testing.T) {
	t.Parallel()
	w := newWorld(t, history.Config{Seed: 10}, 5)
	w.put(t, levels.First, 1, 5)
	dir := t.TempDir()
	run := func(path string, force bool) error {
		_, err := Restore(t.Context(), Config{Sources: []Source{Of(w.a, "app")}, Path: path, Force: force})
		return err
	}
	there := filepath.Join(dir, "there.db")
	db := testenv.OpenDB(t, there, sqlconn.WAL())
	if _, err := db.Exec("CREATE TABLE t(x); INSERT INTO t VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		path  string
		force bool
		want  error
	}{
		"exists":             {there, false, ErrOutputExists},
		"a directory":        {dir, true, ErrOutputDir},
		"no directory":       {filepath.Join(dir, "no", "x.db"), false, ErrNoDir},
		"file as directory":  {filepath.Join(there, "x.db"), false, ErrNoDir},
		"wal of an old one":  {walOnly(t, dir), false, ErrOutputExists},
		"forced over a -wal": {walOnly(t, dir), true, nil},
	} {
		if err := run(c.path, c.force); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if err := w.h.Check(filepath.Join(dir, "old.db"), 5); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "old.db-wal")); !errors.Is(err, os.ErrNotExist) {
		t.Error("the WAL of an older database is still there")
	}
}

func walOnly(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "old.db")
	if err := os.WriteFile(path+"-wal", make([]byte, 5000), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestOutputInUse: a live database of another process is never replaced.
func TestOutputInUse(t *testing.T) {
	t.Parallel()
	w := newWorld(t, history.Config{Seed: 11}, 5)
	w.put(t, levels.First, 1, 5)
	path := filepath.Join(t.TempDir(), "live.db")
	live := testenv.App(t, app.Config{Path: path, DB: sqlconn.WAL(), Rate: 10})
	if _, err := live.WaitFor(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	_, err := Restore(t.Context(), Config{Sources: []Source{Of(w.a, "app")}, Path: path, Force: true})
	if !errors.Is(err, ErrOutputInUse) {
		t.Fatalf("%v, want ErrOutputInUse", err)
	}
}

// TestOutputTakenMeanwhile: a restore takes its time. Whoever began to use the
// name keeps it.
func TestOutputTakenMeanwhile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, history.Config{Seed: 11}, 3)
	w.put(t, levels.First, 1, 3)
	for force, want := range map[bool]error{false: ErrOutputExists, true: ErrOutputInUse} {
		path := filepath.Join(t.TempDir(), "out.db")
		cfg := Config{Sources: []Source{Of(w.a, "app")}, Path: path, Force: force, Check: func(context.Context, string) error {
			live := testenv.App(t, app.Config{Path: path, DB: sqlconn.WAL(), Rate: 10})
			_, err := live.WaitFor(t.Context(), 1)
			return err
		}}
		if _, err := Restore(t.Context(), cfg); !errors.Is(err, want) {
			t.Fatalf("force %t: %v, want %v", force, err, want)
		}
		if _, err := os.Stat(path + "-wal"); err != nil {
			t.Errorf("force %t: %v", force, err)
		}
	}
}

// TestBusy: two restores of one output.
func TestBusy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, history.Config{Seed: 12}, 5)
	w.put(t, levels.First, 1, 5)
	path := filepath.Join(t.TempDir(), "out.db")
	inside := make(chan struct{})
	release := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		_, err := Restore(t.Context(), Config{Sources: []Source{Of(w.a, "app")}, Path: path, Check: func(context.Context, string) error {
			close(inside)
			<-release
			return nil
		}})
		done <- err
	}()
	<-inside
	_, err := Restore(t.Context(), Config{Sources: []Source{Of(w.a, "app")}, Path: path})
	if !errors.Is(err, ErrBusy) {
		t.Errorf("%v, want ErrBusy", err)
	}
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestCheckFails: a database that the caller's check refuses never gets its
// name.
func TestCheckFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, history.Config{Seed: 13}, 5)
	w.put(t, levels.First, 1, 5)
	path := filepath.Join(t.TempDir(), "out.db")
	bad := errors.New("not ok")
	_, err := Restore(t.Context(), Config{Sources: []Source{Of(w.a, "app")}, Path: path, Check: func(context.Context, string) error { return bad }})
	if !errors.Is(err, bad) {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestVanishingFiles: what retention deletes between listing and reading is
// found elsewhere.
func TestVanishingFiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t, history.Config{Seed: 14}, 20)
	for txid := ltx.TXID(1); txid <= 20; txid++ {
		w.put(t, levels.First, txid, txid)
	}
	plans := 0
	path := filepath.Join(t.TempDir(), "out.db")
	_, err := Restore(t.Context(), Config{Sources: []Source{Of(w.a, "app")}, Path: path, OnPlan: func(*Job) error {
		if plans++; plans == 1 {
			w.put(t, levels.Snapshot, 1, 15)
			for txid := ltx.TXID(1); txid <= 15; txid++ {
				if err := w.a.Delete(t.Context(), "app", []levels.File{{Level: levels.First, Min: txid, Max: txid}}); err != nil {
					return err
				}
			}
		}
		return nil
	}})
	if err := errors.Join(err, w.h.Check(path, 20)); err != nil || plans != 2 {
		t.Fatalf("%d plans: %v", plans, err)
	}
}

// TestCatalog: what was listed a moment ago is not listed again, unless it is not
// true any more.
func TestCatalog(t *testing.T) {
	t.Parallel()
	w := newWorld(t, history.Config{Seed: 15}, 20)
	for txid := ltx.TXID(1); txid <= 20; txid++ {
		w.put(t, levels.First, txid, txid)
	}
	source := &uneven{Source: Of(w.a, "app")}
	for i, change := range []func(){func() {}, func() {
		w.put(t, levels.Snapshot, 1, 15)
		if err := w.a.Delete(t.Context(), "app", []levels.File{{Level: levels.First, Min: 3, Max: 3}}); err != nil {
			t.Fatal(err)
		}
	}} {
		source.lists = 0
		catalog, err := Read(t.Context(), source)
		if err != nil {
			t.Fatal(err)
		}
		change()
		path := filepath.Join(t.TempDir(), "out.db")
		_, err = Restore(t.Context(), Config{Catalog: catalog, Path: path})
		if err := errors.Join(err, w.h.Check(path, 20)); err != nil || source.lists != i+1 {
			t.Fatalf("listed %d times, want %d: %v", source.lists, i+1, err)
		}
	}
}

// uneven is a Source whose first listings lack a file.
type uneven struct {
	Source
	lists, lacking int
	lacks          func(levels.File) bool
}

func (s *uneven) List(ctx context.Context) ([]levels.File, error) {
	files, err := s.Source.List(ctx)
	if s.lists++; s.lists <= s.lacking {
		files = slices.DeleteFunc(files, s.lacks)
	}
	return files, err
}

// TestListingsAreNotOfOneMoment: a listing may have a file that was written while
// it ran, and lack the one written before it. A gap that stays is one.
func TestListingsAreNotOfOneMoment(t *testing.T) {
	t.Parallel()
	w := newWorld(t, history.Config{Seed: 16}, 20)
	for txid := ltx.TXID(1); txid <= 20; txid++ {
		w.put(t, levels.First, txid, txid)
	}
	for lacking, want := range map[int]int{0: 1, 1: 2, 1000: 2} {
		source := &uneven{Source: Of(w.a, "app"), lacking: lacking, lacks: func(f levels.File) bool { return f.Min == 19 }}
		path := filepath.Join(t.TempDir(), "out.db")
		_, err := Restore(t.Context(), Config{Sources: []Source{source}, Path: path})
		if lacking == 1000 {
			if plan, ok := errors.AsType[*PlanError](err); !ok || plan.Reached != 18 {
				t.Errorf("a gap: %v", err)
			}
		} else if err := errors.Join(err, w.h.Check(path, 20)); err != nil {
			t.Errorf("%d listings lack a file: %v", lacking, err)
		}
		if source.lists != want {
			t.Errorf("%d listings, want %d", source.lists, want)
		}
	}
}

func TestStretches(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		files []File
		want  []Points
	}{
		{at("9:1-4", "1:5-6", "1:8-9", "9:1-12", "1:13-20", "9:1-16"), []Points{{4, 6}, {12, 20}}},
		{at("9:1-1", "1:1-9", "1:10-12", "0:12-13"), []Points{{1, 13}}}, // Litestream snapshots TXID 1 first
		{at("9:1-1", "9:1-9", "1:10-12"), []Points{{1, 1}, {9, 12}}},
	} {
		c := &Catalog{Files: tt.files}
		if got := c.Stretches(); !slices.Equal(got, tt.want) {
			t.Errorf("%v, want %v", got, tt.want)
		}
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
