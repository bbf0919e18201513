package replica

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// report is what a foreign reader saw.
type report struct {
	Checks int
	States int      // different ones
	Faults []string // broken invariants and errors
}

// What a reader does at least, if it takes a minute.
const (
	leastChecks = 2500
	leastSeq    = 200
)

// childRead reads in a loop until its time is over, and it has read enough.
func childRead(o order) error {
	db, err := sql.Open("sqlite3", "file:"+o.Path+"?mode=ro&_busy_timeout=0")
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	var rep report
	last := -1
	began := time.Now()
	more := func() bool {
		took := time.Since(began)
		return took < o.For || took < time.Minute && (rep.Checks < leastChecks || last < leastSeq)
	}
	for ; more() && len(rep.Faults) < 5; rep.Checks++ {
		var sum, seq, n int
		row := db.QueryRow("SELECT (SELECT sum(bal) FROM acct), (SELECT seq FROM head), (SELECT count(*) FROM acct INDEXED BY acct_bal WHERE bal > -1000000)")
		if err := row.Scan(&sum, &seq, &n); err != nil {
			rep.Faults = append(rep.Faults, err.Error())
			continue
		}
		if sum != 1000*accounts || n != accounts || seq < last {
			rep.Faults = append(rep.Faults, fmt.Sprintf("sum %d of %d accounts, sequence %d after %d", sum, n, seq, last))
		}
		if seq != last {
			rep.States++
		}
		last = seq
	}
	return json.NewEncoder(os.Stdout).Encode(rep)
}

const pythonReader = `
import sqlite3, sys, time, json
path, seconds, accounts, least_checks, least_seq = sys.argv[1], float(sys.argv[2]), *map(int, sys.argv[3:])
db = sqlite3.connect(path, timeout=0, isolation_level=None)
checks = states = 0
last, faults, began = -1, [], time.time()
while (time.time() - began < seconds or time.time() - began < 60 and (checks < least_checks or last < least_seq)) and len(faults) < 5:
    checks += 1
    try:
        db.execute("BEGIN")
        total, n = db.execute("SELECT sum(bal), count(*) FROM acct").fetchone()
        seq = db.execute("SELECT seq FROM head").fetchone()[0]
        db.execute("COMMIT")
    except sqlite3.Error as e:
        faults.append(repr(e))
        if db.in_transaction: db.execute("ROLLBACK")
        continue
    if total != 1000*accounts or n != accounts or seq < last:
        faults.append("sum %d of %d accounts, sequence %d after %d" % (total, n, seq, last))
    states += seq != last
    last = seq
print(json.dumps({"Checks": checks, "States": states, "Faults": faults}))
`

// python returns the interpreter with its sqlite3 module.
func python(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("python3")
	if err == nil {
		err = exec.Command(path, "-c", "import sqlite3").Run()
	}
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("python3 with sqlite3 is needed here: install the package python3")
		}
		t.Skip("no python3 with sqlite3; install it to run this test")
	}
	return path
}

func collect(t *testing.T, name string, cmd *exec.Cmd, done func(report)) {
	t.Helper()
	out, err := cmd.Output()
	var rep report
	if err == nil {
		err = json.Unmarshal(out, &rep)
	}
	if err != nil {
		t.Errorf("%s: %v: %s", name, err, out)
	}
	done(rep)
}

// Readers of other programs and SQLite versions see only states of the primary,
// never an older one, and never wait, while thousands of transactions are
// applied and the WAL is restarted under them.
func TestForeignReaders(t *testing.T) {
	py := python(t)
	rnd := seeded(t, 21)
	p, path := newPrimary(t, 4096), replicaPath(t)
	r := open(t, Config{Path: path, SoftWALLimit: 512 << 10})
	apply(t, r, p.bank())
	const span = 6 * time.Second
	reports := make(chan report)
	start := func(name string, cmd *exec.Cmd) {
		go collect(t, name, cmd, func(rep report) {
			t.Logf("%s: %d checks, %d states", name, rep.Checks, rep.States)
			for _, f := range rep.Faults {
				t.Errorf("%s: %s", name, f)
			}
			reports <- rep
		})
	}
	n := 0
	for i := range 2 {
		start(fmt.Sprintf("python %d", i), exec.Command(py, "-c", pythonReader, path, fmt.Sprint(span.Seconds()), fmt.Sprint(accounts), fmt.Sprint(leastChecks), fmt.Sprint(leastSeq)))
		start(fmt.Sprintf("go %d", i), childCommand(t, "read", order{Path: path, For: span}))
		n += 2
	}
	var f file
	checks, applied := 0, 0
	for left := n; left > 0; {
		select {
		case rep := <-reports:
			checks += rep.Checks
			left--
		default:
			f = p.transfer(rnd)
			apply(t, r, f)
			applied++
		}
	}
	check(t, path, f)
	s := r.Status()
	t.Logf("%d transactions, %d checks, %d restarts, longest pause %v", applied, checks, s.Restarts, s.LongestPause)
	if s.Restarts == 0 {
		t.Error("the wal was never restarted")
	}
	if applied < leastSeq || checks < n*leastChecks {
		t.Error("too little happened")
	}
}

// What other programs may try with the replica while we hold it.
func TestForeignMeddlers(t *testing.T) {
	t.Parallel()
	rnd := seeded(t, 22)
	p, path := newPrimary(t, 4096), replicaPath(t)
	r := open(t, Config{Path: path, SoftWALLimit: 64 << 10})
	apply(t, r, p.bank())
	var stop atomic.Bool
	done := make(chan struct{})
	writer, checkpointer, long := foreign(t, path), foreign(t, path), foreign(t, path)
	ctx := context.Background()
	go func() {
		defer close(done)
		for !stop.Load() {
			if _, err := writer.ExecContext(ctx, "UPDATE head SET seq=-1"); err == nil || !strings.Contains(err.Error(), "locked") {
				t.Errorf("a foreign write: %v, want SQLITE_BUSY", err)
				return
			}
			var busy, log, done int
			if err := checkpointer.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &log, &done); err != nil && !strings.Contains(err.Error(), "locked") {
				t.Errorf("a foreign checkpoint: %v", err)
				return
			}
		}
	}()
	tx, err := long.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	var first, again int
	if err := tx.QueryRow("SELECT seq FROM head").Scan(&first); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	var f file
	shows := func() bool { s := r.Status(); return len(s.PinnedBy) > 0 && s.RestartsBlocked > 0 }
	for time.Since(began) < 3*time.Second || !shows() && time.Since(began) < time.Minute {
		f = p.transfer(rnd)
		apply(t, r, f)
	}
	if err := tx.QueryRow("SELECT seq FROM head").Scan(&again); err != nil || again != first {
		t.Errorf("the long reader saw %d, then %d (%v)", first, again, err)
	}
	s := r.Status()
	if len(s.PinnedBy) == 0 || s.RestartsBlocked == 0 {
		t.Errorf("the long reader does not show: %+v", s)
	}
	tx.Rollback()
	until(t, func() bool {
		f = p.transfer(rnd)
		apply(t, r, f)
		return r.Status().Restarts > s.Restarts
	})
	stop.Store(true)
	<-done
	check(t, path, f)
}
