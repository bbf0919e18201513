package foreign

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/testenv/app"
	"github.com/ltxstream/ltxstream/testenv/bank"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

var readOnly = sqlconn.Options{Mode: "ro"}

// newBank returns the path of a bank and the connection that keeps it open, as ltx-sub keeps a replica open.
func newBank(t *testing.T) (string, *sql.DB) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bank.db")
	db, err := sqlconn.OpenOne(t.Context(), path, sqlconn.WAL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if err := bank.Create(t.Context(), db, bank.Config{}); err != nil {
		t.Fatal(err)
	}
	return path, db
}

func launch(t *testing.T, cfg Config) *Process {
	t.Helper()
	if cfg.Runtime == Python && exec.CommandContext(t.Context(), "python3", "-c", "import sqlite3").Run() != nil {
		absent(t, "python3 with its sqlite3 module: apt-get install python3")
	}
	p, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

// each runs a test with both runtimes.
func each(t *testing.T, f func(*testing.T, Runtime)) {
	for _, r := range []Runtime{Go, Python} {
		t.Run(string(r), func(t *testing.T) { t.Parallel(); f(t, r) })
	}
}

// write commits n transfers on db.
func write(t *testing.T, db *sql.DB, n int64) {
	t.Helper()
	if _, err := app.RunOn(t.Context(), db, app.Config{Limit: n}); err != nil {
		t.Fatal(err)
	}
}

func TestReadersFollowAWriter(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r Runtime) {
		for name, cfg := range map[string]Config{
			"fresh ro":      {DB: readOnly, Fresh: true},
			"long-lived ro": {DB: readOnly},
			"mmap rw":       {DB: sqlconn.Options{Mode: "rw", MMap: 256 << 20, CacheKiB: 200 << 10}},
			"hold":          {Action: Hold, Hold: 60 * time.Millisecond, DB: readOnly},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				path, db := newBank(t)
				cfg.Runtime, cfg.Path = r, path
				p := launch(t, cfg)
				for round := int64(1); round <= 3; round++ {
					write(t, db, 50)
					if _, err := p.WaitFor(soon(t), func(r Report) bool { return r.LastSeq == round*50 }); err != nil {
						t.Fatal(err)
					}
				}
				rep, err := p.Finish(soon(t))
				if err != nil || rep.Checks < 3 || rep.States < 3 || rep.LastSeq != 150 || rep.Busy != 0 || rep.SQLite == "" {
					t.Fatalf("%+v, %v", rep, err)
				}
			})
		}
	})
}

func TestReadersFindViolations(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r Runtime) {
		for what, damage := range map[string]string{
			"invariant": "UPDATE account SET balance = balance + 1 WHERE id = 1",
			"backwards": "BEGIN IMMEDIATE; UPDATE ledger SET seq = 0, touched = 0; UPDATE account SET touched = 0; DELETE FROM transfer; COMMIT",
			"busy":      "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=DELETE; BEGIN EXCLUSIVE",
			"error":     "DROP TABLE account",
		} {
			t.Run(what, func(t *testing.T) {
				t.Parallel()
				path, db := newBank(t)
				write(t, db, 10)
				p := launch(t, Config{Runtime: r, Path: path, DB: readOnly, Fresh: what == "busy", Interval: 10 * time.Millisecond})
				if what != "busy" { // which needs the database without a reader
					if _, err := p.WaitFor(soon(t), func(r Report) bool { return r.Checks > 0 }); err != nil {
						t.Fatal(err)
					}
				}
				damageUntilDone(t, db, damage)
				_, err := p.WaitFor(soon(t), func(Report) bool { return false })
				if v, ok := errors.AsType[*Violation](err); !ok || v.What != what {
					t.Fatalf("got %v", err)
				}
				if _, err := p.Finish(soon(t)); err == nil {
					t.Fatal("Finish does not report the violation")
				}
			})
		}
	})
}

func damageUntilDone(t *testing.T, db *sql.DB, stmt string) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		_, err := db.Exec(stmt)
		if err == nil {
			return
		}
		if !sqlconn.IsBusy(err) || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func TestTryWriteExpectsBusy(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r Runtime) {
		path, db := newBank(t)
		if _, err := db.Exec("BEGIN IMMEDIATE"); err != nil {
			t.Fatal(err)
		}
		p := launch(t, Config{Runtime: r, Action: TryWrite, Path: path, DB: sqlconn.Options{Mode: "rw"}, Interval: time.Millisecond})
		if _, err := p.WaitFor(soon(t), func(r Report) bool { return r.Busy > 10 }); err != nil {
			t.Fatal(err)
		}
		if _, err := db.Exec("COMMIT"); err != nil {
			t.Fatal(err)
		}
		_, err := p.WaitFor(soon(t), func(Report) bool { return false })
		if v, ok := errors.AsType[*Violation](err); !ok || v.What != "wrote" {
			t.Fatalf("got %v", err)
		}
	})
}

func TestCheckpointerAndWriterTogether(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r Runtime) {
		path, db := newBank(t)
		w := launch(t, Config{Runtime: r, Action: Write, Path: path, DB: sqlconn.WAL(), Rate: 300, Seed: 4})
		c := launch(t, Config{Runtime: r, Action: Checkpoint, Path: path, DB: sqlconn.WAL(), Interval: 5 * time.Millisecond})
		if _, err := w.WaitFor(soon(t), func(r Report) bool { return r.Writes >= 60 }); err != nil {
			t.Fatal(err)
		}
		if _, err := c.WaitFor(soon(t), func(r Report) bool { return r.Rounds > r.Busy }); err != nil {
			t.Fatal(err)
		}
		wrote, err := w.Finish(soon(t))
		if err != nil || wrote.Writes == 0 {
			t.Fatalf("%+v, %v", wrote, err)
		}
		if done, err := c.Finish(soon(t)); err != nil || done.Rounds == 0 || done.Busy == done.Rounds {
			t.Fatalf("%+v, %v", done, err)
		}
		if s, err := bank.Check(t.Context(), db); err != nil || s.Seq != wrote.Writes {
			t.Fatalf("seq %d, written %d, %v", s.Seq, wrote.Writes, err)
		}
	})
}

func TestKilledReaderEnds(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r Runtime) {
		path, _ := newBank(t)
		p := launch(t, Config{Runtime: r, Action: Hold, Hold: time.Hour, Path: path, DB: readOnly})
		if _, err := p.WaitFor(soon(t), func(r Report) bool { return r.Checks > 0 }); err != nil {
			t.Fatal(err)
		}
		p.Kill()
		if _, err := p.WaitFor(soon(t), func(Report) bool { return false }); err == nil {
			t.Fatal("a killed process ended well")
		}
	})
}

func TestProbeMeasuresLag(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r Runtime) {
		for name, fresh := range map[string]bool{"fresh": true, "long-lived": false} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				path, db := newBank(t)
				p := launch(t, Config{Runtime: r, Action: Probe, Path: path, DB: readOnly, Fresh: fresh, Interval: 200 * time.Microsecond})
				if _, err := p.WaitFor(soon(t), func(r Report) bool { return r.Checks > 0 }); err != nil {
					t.Fatal(err)
				}
				var commits []app.Commit
				cfg := app.Config{Limit: 100, Rate: 200, Observe: func(c app.Commit) { commits = append(commits, c) }}
				if _, err := app.RunOn(t.Context(), db, cfg); err != nil {
					t.Fatal(err)
				}
				if _, err := p.WaitFor(soon(t), func(r Report) bool { return r.LastSeq == 100 }); err != nil {
					t.Fatal(err)
				}
				rep, err := p.Finish(soon(t))
				if err != nil {
					t.Fatal(err)
				}
				lags, missing := Lags(commits, rep.Seen)
				var h app.Histogram
				for _, l := range lags {
					h.Add(l)
				}
				if missing != 0 || len(lags) < 90 || h.Quantile(0.5) > 500*time.Millisecond {
					t.Fatalf("%d lags, %d missing, median %s", len(lags), missing, h.Quantile(0.5))
				}
				t.Logf("same file, %d polls: p50 %s p99 %s max %s", rep.Checks, h.Quantile(0.5), h.Quantile(0.99), h.Max())
			})
		}
	})
}

func TestLagsJoinsCommitsWithPolls(t *testing.T) {
	t.Parallel()
	commits := []app.Commit{{Seq: 1, End: 10}, {Seq: 2, End: 100}, {Seq: 3, End: 110}, {Seq: 4, End: 200}, {Seq: 5, End: 300}}
	lags, missing := Lags(commits, []Seen{{Seq: 1, At: 50}, {Seq: 3, At: 150}, {Seq: 4, At: 190}})
	if len(lags) != 3 || lags[0] != 50 || lags[1] != 40 || lags[2] != 0 || missing != 1 {
		t.Fatalf("%v, %d missing", lags, missing)
	}
}

func TestShell(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("sqlite3"); err != nil {
		absent(t, "the sqlite3 command: apt-get install sqlite3")
	}
	path, db := newBank(t)
	write(t, db, 5)
	if s, err := CLICheck(t.Context(), path); err != nil || s.Seq != 5 {
		t.Fatalf("%+v, %v", s, err)
	}
	if out, err := CLI(t.Context(), path, "PRAGMA wal_checkpoint(TRUNCATE)", time.Second); err != nil || !strings.HasSuffix(out, "0|0|0") {
		t.Fatalf("%q, %v", out, err)
	}
	if _, err := db.Exec("BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	if _, err := CLI(t.Context(), path, "UPDATE ledger SET seq = seq", 0); err == nil || !strings.Contains(err.Error(), "locked") {
		t.Fatalf("got %v", err)
	}
}

// soon is a context for what should take a moment.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func absent(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal("missing: " + what)
	}
	t.Skip("missing: " + what)
}
