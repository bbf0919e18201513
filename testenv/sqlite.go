package testenv

import (
	"context"
	"database/sql"
	"os"
	"os/exec"
	"testing"

	"github.com/ltxstream/ltxstream/testenv/app"
	"github.com/ltxstream/ltxstream/testenv/bank"
	"github.com/ltxstream/ltxstream/testenv/foreign"
	"github.com/ltxstream/ltxstream/testenv/oracle"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
	"github.com/ltxstream/ltxstream/testenv/workload"
)

// OpenDB opens path with one connection until the end of the test.
func OpenDB(t testing.TB, path string, o sqlconn.Options) *sql.DB {
	t.Helper()
	db, err := sqlconn.OpenOne(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// Bank opens path, makes the bank if it is not there, and returns a handle and a teller on it.
func Bank(t testing.TB, path string, o sqlconn.Options, seed uint64) (*sql.DB, *bank.Teller) {
	t.Helper()
	db := OpenDB(t, path, o)
	if err := bank.Create(t.Context(), db, bank.Config{}); err != nil {
		t.Fatal(err)
	}
	teller, err := bank.NewTeller(t.Context(), db, seed, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = teller.Close() })
	return db, teller
}

// App starts an application in a child process that is killed at the latest at the end of the test.
func App(t testing.TB, cfg app.Config) *app.Process {
	t.Helper()
	p, err := app.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

// TracedApp is App with every commit reported.
func TracedApp(t testing.TB, cfg app.Config) *app.Process {
	t.Helper()
	p, err := app.StartTraced(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

// Workload starts n transactions of random SQL (0: until stopped) in a child process that is killed at the latest at the
// end of the test.
func Workload(t testing.TB, path string, db sqlconn.Options, cfg workload.Config, n int) *workload.Process {
	t.Helper()
	p, err := workload.Start(path, db, cfg, n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

// Foreign starts a foreign process that is killed at the latest at the end of the test. Without python3, a test that needs it is skipped.
func Foreign(t testing.TB, cfg foreign.Config) *foreign.Process {
	t.Helper()
	if cfg.Runtime == foreign.Python {
		NeedPython(t)
	}
	p, err := foreign.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

// Finish stops a foreign process, fails the test for a violation, and returns the final report.
func Finish(t testing.TB, p *foreign.Process) foreign.Report {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := p.Finish(ctx)
	if err != nil {
		t.Error(err)
	}
	return r
}

// NeedPython skips the test when there is no python3 with sqlite3, and fails it under CI=true.
func NeedPython(t testing.TB) {
	t.Helper()
	if err := exec.CommandContext(t.Context(), "python3", "-c", "import sqlite3").Run(); err != nil {
		missing(t, "python3 with its sqlite3 module", "apt-get install python3")
	}
}

// NeedCLI skips the test when there is no sqlite3 command, and fails it under CI=true.
func NeedCLI(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("sqlite3"); err != nil {
		missing(t, "the sqlite3 command", "apt-get install sqlite3")
	}
}

func missing(t testing.TB, what, hint string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is missing: %s", what, hint)
	}
	t.Skipf("%s is missing: %s", what, hint)
}

// Compare fails the test unless every replica is the primary, down to the bytes of each page (free pages included), and the
// integrity of all is ok. It names the first difference. Nobody may write meanwhile. See package oracle.
func Compare(t testing.TB, primary string, replicas ...string) {
	t.Helper()
	for _, r := range replicas {
		if err := oracle.Diff(t.Context(), primary, r); err != nil {
			t.Error(err)
		}
	}
}

// CompareRows is Compare for files that were rebuilt: schema and rows, not pages.
func CompareRows(t testing.TB, primary string, replicas ...string) {
	t.Helper()
	for _, r := range replicas {
		if err := oracle.DiffRows(t.Context(), primary, r); err != nil {
			t.Error(err)
		}
	}
}
