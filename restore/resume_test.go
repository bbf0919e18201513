package restore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/testenv/history"
)

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
