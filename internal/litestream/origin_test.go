package litestream_test

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/compactor"
	"github.com/ltxstream/ltxstream/internal/litestream"
	"github.com/ltxstream/ltxstream/objstore/dir"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/child"
	real "github.com/ltxstream/ltxstream/testenv/litestream"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const patience = time.Minute

// world is a database that Litestream replicates into a directory.
type world struct {
	path, dir string
	db        *sql.DB
	archive   *levels.Archive
	process   *child.Process
}

func newWorld(t *testing.T, v real.Version) *world {
	t.Helper()
	w := &world{path: filepath.Join(t.TempDir(), "app.db"), dir: filepath.Join(t.TempDir(), "archive")}
	var err error
	if w.db, err = sqlconn.OpenOne(t.Context(), w.path, sqlconn.WAL()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.db.Close() })
	w.exec(t, "CREATE TABLE t(a)")
	store, err := dir.New(t.Context(), dir.Config{Path: w.dir, Create: true})
	if err != nil {
		t.Fatal(err)
	}
	w.archive = levels.New(store, levels.Decimal)
	w.process = v.Start(t, nil, "replicate", "-config", real.Config(t, fmt.Sprintf("dbs:\n- path: %s\n  replicas:\n  - type: file\n    path: %s\n    sync-interval: 50ms\n", w.path, w.dir)))
	return w
}

func (w *world) exec(t *testing.T, query string) {
	t.Helper()
	if _, err := w.db.ExecContext(t.Context(), query); err != nil {
		t.Fatal(err)
	}
}

// end is the newest TXID, by looking at the names of the files.
func (w *world) end(t *testing.T) ltx.TXID {
	t.Helper()
	inv, err := compactor.ReadInventory(t.Context(), w.archive, levels.Root)
	if err != nil {
		t.Fatal(err)
	}
	return inv.End().Max
}

func (w *world) origin() litestream.Origin {
	return litestream.Origin{Archive: w.archive, Names: []string{"app", levels.Root}, Path: w.path}
}

// TestEnd: while Litestream has the database open, or its archive grows, it tells
// nothing; then the newest TXID of all levels.
func TestEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t, real.Current)
	testenv.Until(t, patience, "the first file", func() error {
		if w.end(t) == 0 {
			return errors.New("none")
		}
		return nil
	})
	if end, err := w.origin().End(t.Context()); !errors.Is(err, litestream.ErrRunning) {
		t.Errorf("it runs: %s, %v", end, err)
	}
	elsewhere := w.origin()
	elsewhere.Path = "" // it runs on another machine
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				_, _ = w.db.Exec("INSERT INTO t VALUES (1)")
			}
		}
	}()
	testenv.Until(t, patience, "a look at a growing archive", func() error { // a slow Litestream may write nothing between two
		if end, err := elsewhere.End(t.Context()); !errors.Is(err, litestream.ErrRunning) {
			return fmt.Errorf("it runs elsewhere: %s, %w", end, err)
		}
		return nil
	})
	close(stop)
	<-done
	real.Stop(t, w.process)
	want := w.end(t)
	for range 2 { // the second time it has been quiet
		if end, err := w.origin().End(t.Context()); err != nil || end != want || want < 3 {
			t.Errorf("%s, %v; want %s", end, err, want)
		}
	}
}

func TestNothingToContinue(t *testing.T) {
	t.Parallel()
	w := newWorld(t, real.Generations)
	testenv.Until(t, patience, "a generation", func() error {
		_, err := os.Stat(filepath.Join(w.dir, "generations"))
		return err
	})
	real.Stop(t, w.process)
	if end, err := w.origin().End(t.Context()); !errors.Is(err, litestream.ErrGenerations) {
		t.Errorf("%s, %v; want ErrGenerations", end, err)
	}
	above := w.origin()
	store, err := dir.New(t.Context(), dir.Config{Path: filepath.Dir(w.dir)})
	if err != nil {
		t.Fatal(err)
	}
	above.Archive, above.Names = levels.New(store, levels.Decimal), []string{"archive"}
	if end, err := above.End(t.Context()); !errors.Is(err, litestream.ErrGenerations) {
		t.Errorf("from above: %s, %v; want ErrGenerations", end, err)
	}
	above.Names = []string{"other"}
	if end, err := above.End(t.Context()); !errors.Is(err, litestream.ErrEmpty) {
		t.Errorf("of another name: %s, %v; want ErrEmpty", end, err)
	}
}
