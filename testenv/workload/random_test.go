package workload

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/testenv/oracle"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

func run(t *testing.T, path string, o sqlconn.Options, cfg Config, n int) Report {
	t.Helper()
	db, err := sqlconn.OpenOne(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	r, err := New(cfg).Run(t.Context(), db, n)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSameSeedSameDatabase(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	paths := make([]string, 2)
	for i := range paths {
		paths[i] = filepath.Join(t.TempDir(), "a.db")
		run(t, paths[i], sqlconn.WAL(), Config{Seed: seed}, 150)
	}
	if err := oracle.Diff(t.Context(), paths[0], paths[1]); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), "a.db")
	run(t, other, sqlconn.WAL(), Config{Seed: seed + 1}, 150)
	if err := oracle.DiffRows(t.Context(), paths[0], other); err == nil {
		t.Fatal("another seed made the same database")
	}
}

func TestEveryKindOfStatementHappens(t *testing.T) {
	t.Parallel()
	r := run(t, filepath.Join(t.TempDir(), "a.db"), sqlconn.WAL(), Config{Seed: 1}, 800)
	for _, kind := range []string{
		"create table", "drop table", "create index", "drop index", "add column", "insert", "blob", "update", "overwrite",
		"delete", "delete most", "vacuum", "incremental_vacuum", "user_version", "analyze", "reindex",
	} {
		if r.Statements[kind] == 0 {
			t.Errorf("no %s", kind)
		}
	}
	if r.Commits == 0 || r.RolledBack == 0 || r.Savepoints == 0 || r.Checkpoints == 0 || r.Busy != 0 {
		t.Errorf("%+v", r)
	}
}

func TestEverySettingStaysIntact(t *testing.T) {
	t.Parallel()
	for _, size := range []int{512, 1024, 4096, 65536} {
		for vacuum := range 3 {
			t.Run(fmt.Sprintf("%d auto_vacuum %d", size, vacuum), func(t *testing.T) {
				t.Parallel()
				path := filepath.Join(t.TempDir(), "a.db")
				o := sqlconn.WAL()
				o.PageSize, o.AutoVacuum, o.Synchronous = size, vacuum, "off"
				run(t, path, o, Config{Seed: uint64(size + vacuum)}, 60)
				s, err := oracle.Open(t.Context(), path)
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				if err := s.Integrity(t.Context()); err != nil {
					t.Error(err)
				}
				if int(s.Header.PageSize) != size || int(s.Header.AutoVacuum) != vacuum || s.Header.PageCount < 3 {
					t.Errorf("%+v", s.Header)
				}
			})
		}
	}
}

func TestUntilContextEnds(t *testing.T) {
	t.Parallel()
	db, err := sqlconn.OpenOne(t.Context(), filepath.Join(t.TempDir(), "a.db"), sqlconn.WAL())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for span := 100 * time.Millisecond; ; span *= 2 { // a slow machine commits nothing in the first ones
		ctx, cancel := context.WithTimeout(t.Context(), span)
		r, err := New(Config{}).Run(ctx, db, 0)
		cancel()
		if err != nil || r.Commits == 0 && span > 30*time.Second {
			t.Fatalf("%+v, %v", r, err)
		}
		if r.Commits > 0 {
			return
		}
	}
}

func TestKilledInsideATransaction(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.db")
	p, err := Start(path, sqlconn.WAL(), Config{Seed: 3}, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	if r, err := p.WaitFor(soon(t), 50); err != nil {
		t.Fatalf("%+v, %v", r, err)
	}
	p.Kill()
	s, err := oracle.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Integrity(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// soon is a context for what should take a moment.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}
