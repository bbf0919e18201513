package generations

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/objstore/dir"
	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/litestream"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

// real is an archive that version 0.3 wrote.
type real struct {
	*litestream.Written
	store *dir.Store
}

func writeReal(t *testing.T, o sqlconn.Options, seed uint64) real {
	t.Helper()
	r := real{Written: litestream.Write(t, o, seed)}
	var err error
	if r.store, err = dir.New(t.Context(), dir.Config{Path: r.Dir}); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r real) restored(t *testing.T, target Target) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "out.db")
	if _, err := Restore(t.Context(), Config{Store: r.store, DB: r.DB, Target: target, Path: path}); err != nil {
		t.Fatalf("%+v: %v", target, err)
	}
	return path
}

// same fails the test unless a version of Litestream restores the same bytes.
func (r real) same(t *testing.T, v litestream.Version, ours string, flags ...string) {
	t.Helper()
	theirs := filepath.Join(t.TempDir(), "theirs.db")
	v.MustRun(t, nil, append(append([]string{"restore", "-o", theirs}, flags...), r.URL())...)
	a, errA := os.ReadFile(ours)
	b, errB := os.ReadFile(theirs)
	if errA != nil || errB != nil || !bytes.Equal(a, b) {
		t.Errorf("%s %v: %d bytes, ours are %d, or others: %v, %v", v, flags, len(b), len(a), errA, errB)
	}
}

// TestReal: what version 0.3 wrote is restored as the database was, and to the bytes
// that it and the current version restore.
func TestReal(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]sqlconn.Options{
		"usual pages": sqlconn.WAL(),
		"small pages": {Journal: "wal", BusyTimeout: 10 * time.Second, PageSize: 512, AutoVacuum: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := writeReal(t, o, uint64(time.Now().UnixNano()))
			all, err := Read(context.Background(), r.store, r.DB)
			if err != nil {
				t.Fatal(err)
			}
			for _, g := range all {
				first, last := g.Bounds()
				t.Logf("%s: %d snapshots, %d segments, %v, %s to %s", g.Name, len(g.Snapshots), len(g.Segments), g.Stretches(), first, last)
				if len(g.Snapshots) < 3 || len(g.Stretches()) != 1 {
					t.Errorf("%s: %d snapshots, %v", g.Name, len(g.Snapshots), g.Stretches())
				}
			}
			if len(all) != 2 {
				t.Fatalf("%d generations", len(all))
			}
			r.points(t)
			for _, g := range all {
				r.indexes(t, g)
			}
			latest := r.restored(t, Target{})
			testenv.CompareRows(t, r.Points[len(r.Points)-1].Rows, latest)
			r.same(t, litestream.Generations, latest)
			r.same(t, litestream.Current, latest)
			report, err := Check(t.Context(), CheckConfig{Store: r.store, DB: r.DB, Whole: func(string) bool { return true }})
			if err != nil || len(report.Problems) > 0 {
				t.Errorf("%+v, %v", report.Problems, err)
			}
		})
	}
}

// points restores each moment by its time.
func (r real) points(t *testing.T) {
	t.Helper()
	for i, p := range r.Points {
		ours := r.restored(t, Target{Time: p.Time})
		testenv.CompareRows(t, p.Rows, ours)
		if i == len(r.Points)-1 || r.Points[i+1].Generation != p.Generation {
			testenv.CompareRows(t, p.Rows, r.restored(t, Target{Generation: p.Generation}))
			continue // behind the last object of its generation: 0.3 finds nothing there
		}
		at := p.Time.Format(time.RFC3339Nano)
		r.same(t, litestream.Generations, ours, "-timestamp", at)
		r.same(t, litestream.Current, ours, "-timestamp", at)
	}
}

// indexes restores to the end of each WAL.
func (r real) indexes(t *testing.T, g Generation) {
	t.Helper()
	for _, s := range g.Segments {
		if s.Offset > 0 || s.Index < g.Snapshots[0].Index {
			continue
		}
		ours := r.restored(t, Target{Generation: g.Name, Index: &s.Index})
		r.same(t, litestream.Generations, ours, "-generation", g.Name, "-index", fmt.Sprint(s.Index))
	}
}
