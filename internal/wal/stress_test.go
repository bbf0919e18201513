//go:build cgo

package wal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestStress lets a foreign process write, checkpoint, vacuum and die at random
// while we pin, backfill and restart; the end must equal a database that was
// given the same statements and none of that.
func TestStress(t *testing.T) {
	kinds(t, func(t *testing.T, kind string) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		r := rand.New(rand.NewPCG(seed, 0))
		size := pageSizes[r.IntN(len(pageSizes))]
		path, f := newDatabase(t, kind, size)
		d := openDB(t, path)
		model := newModel(t)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		var restarts atomic.Int64
		var fault error
		wg.Go(func() { fault = pinBackfillRestart(ctx, d, rand.New(rand.NewPCG(seed, 1)), &restarts) })

		reader := startForeign(t, "python", path)
		f.exec("PRAGMA busy_timeout=5000")
		start := time.Now()
		n := 0
		for ; time.Since(start) < 4*time.Second || restarts.Load() == 0 && time.Since(start) < time.Minute; n++ {
			f = stressStep(t, r, kind, path, f, model)
			if n%40 == 0 {
				reader.intact()
			}
		}
		cancel()
		wg.Wait()
		must(t, fault)
		f.intact()
		all := "SELECT id, hex(b) FROM t ORDER BY id"
		want, err := queryText(model, all)
		must(t, err)
		if got := f.exec(all); got != want {
			t.Fatalf("%d bytes of rows, want %d; or other ones", len(got), len(want))
		}
		must(t, d.Unpin())
		if res := backfill(t, d); !res.Done() {
			t.Fatalf("%+v", res)
		}
		checkFileAlone(t, path, f)
		t.Logf("page size %d: %d steps, %d restarts of ours", size, n, restarts.Load())
		if restarts.Load() == 0 {
			t.Error("no restart came through")
		}
	})
}

func newModel(t *testing.T) *sql.Conn {
	t.Helper()
	db, err := sql.Open("sqlite3", ":memory:")
	must(t, err)
	t.Cleanup(func() { db.Close() })
	conn, err := db.Conn(context.Background())
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	_, err = conn.ExecContext(t.Context(), "CREATE TABLE t(id INTEGER PRIMARY KEY, b BLOB)")
	must(t, err)
	return conn
}

// stressStep makes the writer do one thing, and returns the writer that goes on.
func stressStep(t *testing.T, r *rand.Rand, kind, path string, f *foreign, model *sql.Conn) *foreign {
	t.Helper()
	both := func(stmt string) {
		f.exec(stmt)
		if _, err := model.ExecContext(t.Context(), stmt); err != nil {
			t.Fatalf("model: %s: %v", stmt, err)
		}
	}
	switch n := r.IntN(100); {
	case n < 45:
		both(fmt.Sprintf("WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<%d) INSERT INTO t(b) SELECT zeroblob(%d)||hex(i*%d) FROM c",
			1+r.IntN(20), r.IntN(3000), r.IntN(1<<30)))
	case n < 65:
		both(fmt.Sprintf("UPDATE t SET b=b||'%x' WHERE id%%%d=0", r.Uint64(), 1+r.IntN(30)))
	case n < 80:
		both(fmt.Sprintf("DELETE FROM t WHERE id%%%d=%d", 2+r.IntN(8), r.IntN(3)))
	case n < 82:
		f.exec("VACUUM")
	case n < 92:
		f.exec("PRAGMA busy_timeout=15")
		f.exec("PRAGMA wal_checkpoint(" + []string{"PASSIVE", "RESTART", "TRUNCATE"}[r.IntN(3)] + ")")
		f.exec("PRAGMA busy_timeout=5000")
	case n < 97:
		f.exec("BEGIN IMMEDIATE")
		f.exec("UPDATE t SET b=zeroblob(900)")
		f.exec("ROLLBACK")
	default:
		f.exec("PRAGMA cache_size=3")
		f.exec("BEGIN IMMEDIATE")
		f.insert(200, 900)
		f.kill()
		f = startForeign(t, kind, path)
		f.exec("PRAGMA busy_timeout=5000")
		f.exec("PRAGMA wal_autocheckpoint=0")
	}
	return f
}

// pinBackfillRestart does what a capture does, without pause, until ctx ends.
func pinBackfillRestart(ctx context.Context, d *DB, r *rand.Rand, restarts *atomic.Int64) error {
	for ctx.Err() == nil {
		if err := d.Pin(); err != nil && !errors.Is(err, ErrBusy) {
			return err
		}
		done, err := tryRestart(ctx, d)
		if err != nil && ctx.Err() == nil {
			return err
		}
		if done {
			restarts.Add(1)
		}
		if r.IntN(4) == 0 {
			if err := d.Unpin(); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(r.IntN(3000)) * time.Microsecond):
		}
	}
	return nil
}

// tryRestart backfills, and restarts where nobody is in the way.
func tryRestart(ctx context.Context, d *DB) (restarted bool, err error) {
	if err := d.TryLock(Ckpt); err != nil {
		return false, ignoreBusy(err)
	}
	defer d.Unlock(Ckpt)
	if _, err := d.Backfill(ctx); err != nil {
		return false, err
	}
	if err := d.LockWithin(ctx, Write, 5*time.Millisecond); err != nil {
		return false, ignoreBusy(err)
	}
	defer d.Unlock(Write)
	if _, err := d.Backfill(ctx); err != nil {
		return false, err
	}
	h, err := d.Header()
	if err != nil || h.MaxFrame == 0 {
		return false, err
	}
	if err := d.Restart(NextGeneration(h)); err != nil {
		return false, ignoreBusy(err)
	}
	return true, nil
}

func ignoreBusy(err error) error {
	if errors.Is(err, ErrBusy) || errors.Is(err, ErrNotBackfilled) {
		return nil
	}
	return err
}

// TestStressAppend replays random transactions into a copy that three foreign
// readers loop over: every state they see must be one that was committed.
func TestStressAppend(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	w, writer, first := newTwin(t, "python", pageSizes[r.IntN(4)])
	defer lockAll(t, w.to, Write)()
	readers := []*foreign{first, startForeign(t, "go", w.to.path), startForeign(t, "python", w.to.path)}
	valid := map[string]bool{first.exec(digest): true}
	seen := map[string]bool{}
	pending := make([]bool, len(readers))
	for i := range 150 {
		writer.insert(1+r.IntN(20), r.IntN(2000))
		if r.IntN(3) == 0 {
			writer.exec(fmt.Sprintf("DELETE FROM t WHERE id%%7=%d", r.IntN(7)))
		}
		valid[writer.exec(digest)] = true
		for j, f := range readers {
			if !pending[j] {
				f.send(digest)
				pending[j] = true
			}
		}
		w.replay(0)
		for j, f := range readers {
			if r.IntN(2) == 0 {
				got, err := f.receive()
				must(t, err)
				pending[j] = false
				if seen[got] = true; !valid[got] {
					t.Fatalf("round %d: reader %d saw a state that never was: %s", i, j, got)
				}
			}
		}
		if i%10 == 9 {
			restartBesideReaders(t, w.to)
		}
	}
	for j, f := range readers {
		if pending[j] {
			_, err := f.receive()
			must(t, err)
		}
		f.intact()
	}
	t.Logf("%d states of %d seen", len(seen), len(valid))
	if len(seen) < 3 {
		t.Error("hardly a state was seen")
	}
}

func restartBesideReaders(t *testing.T, d *DB) {
	t.Helper()
	defer lockAll(t, d, Ckpt)()
	res, err := d.Backfill(t.Context())
	must(t, err)
	if res.Done() {
		if err := ignoreBusy(d.Restart(NextGeneration(header(t, d)))); err != nil {
			t.Fatal(err)
		}
	}
}
