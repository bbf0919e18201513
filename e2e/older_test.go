package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/restore/generations"
	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/litestream"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

// TestOlderArchives: what Litestream 0.3 wrote is restored from every storage: the
// newest point, a moment, a WAL index, a generation.
func TestOlderArchives(t *testing.T) {
	t.Parallel()
	w := litestream.Write(t, sqlconn.WAL(), seed(t))
	onEachBackend(t, func(t *testing.T, _ jetstream.JetStream, to *levels.Archive) {
		first, last := w.Points[2], w.Points[len(w.Points)-1] // of each generation the end
		if first.Generation == last.Generation {
			t.Fatal("there is one generation")
		}
		moments := []time.Time{} // when the storage had all up to a point, and nothing else
		points := []litestream.Point{w.Points[0], first, last}
		var after time.Time
		for _, p := range points {
			moments = append(moments, copyOlder(t, w, to.Store(), after, p.Time))
			after = p.Time
		}
		for i, p := range points {
			testenv.CompareRows(t, p.Rows, restoredOlder(t, to, w.DB, generations.Target{Time: moments[i]}))
		}
		index, err := generations.ParseIndex(first.Index)
		if err != nil {
			t.Fatal(err)
		}
		testenv.CompareRows(t, last.Rows, restoredOlder(t, to, w.DB, generations.Target{}))
		testenv.CompareRows(t, first.Rows, restoredOlder(t, to, w.DB, generations.Target{Generation: first.Generation}))
		testenv.CompareRows(t, first.Rows, restoredOlder(t, to, w.DB, generations.Target{Generation: first.Generation, Index: &index}))
		report, err := generations.Check(t.Context(), generations.CheckConfig{Store: to.Store(), DB: w.DB, Whole: func(string) bool { return true }})
		if err != nil || len(report.Problems) > 0 || report.Read == 0 {
			t.Errorf("%+v, %v", report, err)
		}
	})
}

// copyOlder copies what was written after one moment and up to another, in that order,
// and returns a moment of the storage's clock between these objects and later ones.
func copyOlder(t *testing.T, w *litestream.Written, store objstore.Store, after, upTo time.Time) (moment time.Time) {
	t.Helper()
	type file struct {
		path string
		at   time.Time
	}
	var files []file
	err := filepath.WalkDir(w.Dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if at := info.ModTime(); err == nil && at.After(after) && !at.After(upTo) {
			files = append(files, file{path, at})
		}
		return err
	})
	if err != nil || len(files) < 3 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	slices.SortFunc(files, func(a, b file) int { return a.at.Compare(b.at) })
	for _, f := range files {
		body, err := os.Open(f.path)
		if err != nil {
			t.Fatal(err)
		}
		key, err := filepath.Rel(w.Dir, f.path)
		if err == nil {
			_, err = store.Put(t.Context(), filepath.ToSlash(key), body, objstore.PutOptions{Timestamp: time.Now()})
		}
		if err := errors.Join(err, body.Close()); err != nil {
			t.Fatal(err)
		}
		info, err := store.Stat(t.Context(), filepath.ToSlash(key))
		if err != nil {
			t.Fatal(err)
		}
		moment = info.Modified
	}
	testenv.Until(t, 10*time.Second, "the next second of the storage's clock", func() error {
		if time.Since(moment) < 1100*time.Millisecond {
			return errors.New("too early")
		}
		return nil
	})
	return moment
}

func restoredOlder(t *testing.T, from *levels.Archive, db string, target generations.Target) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "out.db")
	if _, err := generations.Restore(t.Context(), generations.Config{Store: from.Store(), DB: db, Target: target, Path: path}); err != nil {
		t.Fatalf("%+v: %v", target, err)
	}
	return path
}
