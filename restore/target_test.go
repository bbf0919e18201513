package restore

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/app"
	"github.com/ltxstream/ltxstream/testenv/history"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

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
