package litestream

import (
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/child"
	"github.com/ltxstream/ltxstream/testenv/oracle"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

// Written is what version 0.3 wrote into a directory: two generations, several WAL
// indexes and snapshots in each.
type Written struct {
	Dir    string // of the archive
	DB     string // the database's folder in it
	Points []Point
}

// Point is a moment at which the archive had all of the database.
type Point struct {
	Time       time.Time // nothing was written from then until later
	Rows       string    // path of a copy made by VACUUM INTO
	Generation string
	Index      string // as names have it; of the newest segment
}

// URL is where the database's generations are, for Litestream.
func (w *Written) URL() string { return "file://" + filepath.Join(w.Dir, w.DB) }

// Write runs version 0.3 on a database with random work until it has written all of that.
func Write(t testing.TB, o sqlconn.Options, seed uint64) *Written {
	t.Helper()
	t.Logf("seed %d", seed)
	dir := t.TempDir()
	w := &writing{
		Written: &Written{Dir: filepath.Join(dir, "archive"), DB: "app"},
		t:       t, path: filepath.Join(dir, "app.db"), rng: rand.New(rand.NewPCG(seed, 1)),
	}
	db, err := sqlconn.OpenOne(t.Context(), w.path, o)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	w.db = db // open all the time, so that the WAL stays where it is
	w.config = Config(t, fmt.Sprintf(`dbs:
- path: %s
  monitor-interval: 20ms
  min-checkpoint-page-count: 12
  replicas:
  - type: file
    path: %s
    sync-interval: 20ms
    snapshot-interval: 150ms
`, w.path, filepath.Join(w.Dir, w.DB)))
	w.exec("CREATE TABLE t (a INTEGER PRIMARY KEY, b BLOB)")
	w.generation()
	w.exec("INSERT INTO t (b) VALUES (zeroblob(9000))") // nobody sees it, and the WAL goes: a new generation
	w.exec("PRAGMA wal_checkpoint(TRUNCATE)")
	w.generation()
	return w.Written
}

type writing struct {
	*Written
	t      testing.TB
	path   string
	config string
	db     *sql.DB
	rng    *rand.Rand
}

func (w *writing) exec(query string, args ...any) {
	w.t.Helper()
	if _, err := w.db.ExecContext(w.t.Context(), query, args...); err != nil {
		w.t.Fatal(err)
	}
}

// generation runs Litestream until there are several points.
func (w *writing) generation() {
	w.t.Helper()
	old, _, _ := strings.Cut(w.newest("snapshots"), "/")
	p := Generations.Start(w.t, nil, "replicate", "-config", w.config)
	w.until(p, "a new generation", func() bool { return !strings.HasPrefix(w.newest("wal"), old) || old == "" && w.newest("wal") != "" })
	for range 3 {
		snapshot := w.newest("snapshots")
		for range 2 {
			before := index(w.newest("wal"))
			w.work()
			w.until(p, "the next WAL index", func() bool { return index(w.newest("wal")) > before })
		}
		w.exec("VACUUM")
		w.until(p, "another snapshot", func() bool { return w.newest("snapshots") != snapshot })
		w.work()
		w.note()
	}
	Stop(w.t, p)
}

// work writes some transactions, of several pages each.
func (w *writing) work() {
	for range 6 {
		switch w.rng.IntN(4) {
		case 0:
			w.exec("DELETE FROM t WHERE a % 3 = ?", w.rng.IntN(3))
		case 1:
			w.exec("UPDATE t SET b = randomblob(length(b)) WHERE a % 2 = ?", w.rng.IntN(2))
		default:
			blob := make([]byte, w.rng.IntN(20_000))
			for i := range blob {
				blob[i] = byte(w.rng.IntN(30))
			}
			w.exec("INSERT INTO t (b) VALUES (?)", blob)
		}
	}
	w.exec("INSERT INTO t (b) VALUES (randomblob(80000))") // enough for a checkpoint
}

// note waits until everything is in the archive, and makes that a point.
func (w *writing) note() {
	w.t.Helper()
	p := Point{Rows: filepath.Join(w.t.TempDir(), "rows.db")}
	testenv.Until(w.t, timeout, "all to be in the archive", func() error {
		out := filepath.Join(w.t.TempDir(), "out.db")
		if _, err := Generations.Run(w.t, nil, "restore", "-o", out, w.URL()); err != nil {
			return err
		}
		return oracle.DiffRows(w.t.Context(), w.path, out)
	})
	p.Time = time.Now()
	w.exec("VACUUM INTO ?", p.Rows)
	parts := strings.Split(w.newest("wal"), "/")
	p.Generation, p.Index = parts[0], index(w.newest("wal"))
	w.Points = append(w.Points, p)
	testenv.Until(w.t, timeout, "the clock of files, which moves in steps", func() error {
		if time.Since(p.Time) < 50*time.Millisecond {
			return errors.New("too early")
		}
		return nil
	})
}

// newest returns the file of a kind, as generation/kind/name, that was written last;
// of one generation: the one with the highest index.
func (w *writing) newest(kind string) (newest string) {
	root := filepath.Join(w.Dir, w.DB, "generations")
	generations, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.t.Fatal(err)
	}
	var last time.Time
	for _, g := range generations {
		files, err := os.ReadDir(filepath.Join(root, g.Name(), kind))
		if err != nil || len(files) == 0 {
			continue // not there yet
		}
		name := files[len(files)-1].Name()
		if st, err := os.Stat(filepath.Join(root, g.Name(), kind, name)); err == nil && st.ModTime().After(last) {
			newest, last = g.Name()+"/"+kind+"/"+name, st.ModTime()
		}
	}
	return newest
}

// index is the index in a path that newest returned.
func index(path string) string {
	name := path[strings.LastIndexByte(path, '/')+1:]
	return name[:min(8, len(name))]
}

// nudge is how long Litestream may do nothing before there is something new for it:
// a checkpoint that somebody was in the way of it does not try again before.
const nudge = 3 * time.Second

// until waits for a condition while p runs.
func (w *writing) until(p *child.Process, what string, cond func() bool) {
	w.t.Helper()
	last := time.Now()
	testenv.Until(w.t, timeout, what, func() error {
		if cond() {
			return nil
		}
		if time.Since(last) > nudge {
			last = time.Now()
			w.exec("INSERT INTO t (b) VALUES (randomblob(80000))")
		}
		return fmt.Errorf("it is not there; the process: %v", p.Err())
	})
}
