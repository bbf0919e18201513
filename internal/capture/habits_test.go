package capture

import (
	"context"
	"fmt"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

// Checkpoints of the application succeed with us as they do without, and no
// statement waits for us.
func TestCheckpointsOfTheApplication(t *testing.T) {
	for _, timeout := range []time.Duration{0, 2 * stuck} {
		t.Run(fmt.Sprint("busy timeout ", timeout), func(t *testing.T) {
			work := func(path string) writerReport {
				o := sqlconn.Options{Journal: "wal", BusyTimeout: max(timeout, time.Nanosecond)}
				p, reports := writeReporting(t, writerSpec{Path: path, Seed: 5, Statements: short(300, 5000), Checkpoints: 6, Options: o, Tolerant: true})
				finish(t, p)
				rep, err := reports.Last()
				must(t, err)
				return rep
			}
			alone := work(seeded(t, sqlconn.Options{}))
			path := seeded(t, sqlconn.Options{})
			r := run(t, Config{Path: path}, &shadow{})
			r.settle()
			with := work(path)
			r.settle()
			r.equal(path)
			t.Logf("alone %+v, with a capture %+v, stats %+v", alone, with, r.c.Stats())
			// Without a timeout RESTART and TRUNCATE, half of them, meet the pin where
			// they follow a commit at once: there is no time to yield.
			allowed := with.Checkpoints / 10
			if timeout == 0 {
				allowed = with.Checkpoints * 6 / 10
			}
			if with.Busy > alone.Busy+allowed {
				t.Errorf("%d of %d checkpoints were busy, %d without a capture", with.Busy, with.Checkpoints, alone.Busy)
			}
			if with.Slowest > alone.Slowest+stuck { // a stall by the pin lasts for the busy timeout
				t.Errorf("the slowest statement took %s, %s without a capture", with.Slowest, alone.Slowest)
			}
			if with.Refused > with.Done/20 {
				t.Errorf("%d of %d statements were refused", with.Refused, with.Done)
			}
		})
	}
}

// An idle database can be checkpointed at once, unless that meets the instant in
// which we empty its WAL; and then soon.
func TestCheckpointOfIdleDatabase(t *testing.T) {
	a := newApp(t, patientApp, 1)
	r := run(t, Config{Path: a.path}, &shadow{})
	r.settle()
	for range 20 {
		a.update(1)
		r.settle()
		a.truncate()
	}
	if s := r.c.Stats(); s.Comparisons > 3 {
		t.Errorf("%d comparisons", s.Comparisons)
	}
}

// A comparison lets a checkpointer pass.
func TestCheckpointDuringComparison(t *testing.T) {
	a := newApp(t, patientApp, 1)
	a.exec("CREATE TABLE b (x BLOB)")
	a.exec("INSERT INTO b VALUES (randomblob(12000000))")
	s := newSlowStep("compare", 60*time.Millisecond) // a large database
	r := run(t, Config{Path: a.path, Crash: s.crash}, &shadow{})
	for range 5 {
		a.update(3)
		s.begin()
		a.truncate()
		s.end()
	}
	r.settle()
	r.equal(a.path)
}

// … also while it lays a large WAL over the database.
func TestCheckpointDuringOverlay(t *testing.T) {
	checkpointDuring(t, "overlay", Config{})
}

// … and while what it found is written.
func TestCheckpointDuringWriteOfComparison(t *testing.T) {
	checkpointDuring(t, "write", Config{})
}

// A checkpoint does not wait until a large WAL has been read, or made into a file;
// also where each transaction is wanted by itself, if there is but one.
func TestCheckpointDuringLargeGroup(t *testing.T) {
	for _, step := range []string{"read", "take"} {
		t.Run(step, func(t *testing.T) { checkpointDuring(t, step, Config{}) })
	}
}

func TestCheckpointDuringLargeTransaction(t *testing.T) {
	checkpointDuring(t, "take", Config{PerTransaction: true})
}

// A slowStep makes a step slow that is taken for each MiB of 12. Until end it takes
// longer than stuck; ended, it takes no time.
type slowStep struct {
	label  string
	short  time.Duration // once or twice, of which a checkpoint that is let through waits for one
	slow   atomic.Bool
	taken  atomic.Int32
	during chan struct{} // has a value once it was taken
}

func newSlowStep(label string, short time.Duration) *slowStep {
	return &slowStep{label: label, short: short, during: make(chan struct{}, 1)}
}

func (s *slowStep) begin() { s.taken.Store(0); s.slow.Store(true) }
func (s *slowStep) end()   { s.slow.Store(false) }

func (s *slowStep) crash(label string) {
	if label != s.label || !s.slow.Load() {
		return
	}
	select {
	case s.during <- struct{}{}:
	default:
	}
	span := s.short
	if s.taken.Add(1) > 4 {
		span = stuck / 5
	}
	for end := time.Now().Add(span); s.slow.Load() && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
}

// checkpointDuring has a TRUNCATE checkpoint wait while something that takes longer
// than stuck is at a step.
func checkpointDuring(t *testing.T, step string, cfg Config) {
	t.Helper()
	a := newApp(t, sqlconn.Options{AutoCheckpoint: -1, BusyTimeout: 2 * stuck}, 1)
	a.exec("CREATE TABLE b (x BLOB)")
	s := newSlowStep(step, 300*time.Millisecond)
	cfg.Path, cfg.Crash = a.path, s.crash
	fill := func() {
		a.exec("INSERT INTO b VALUES (randomblob(12000000))")
	}
	compared := step == "overlay" || step == "write"
	if compared {
		fill()
		s.begin()
	}
	r := run(t, cfg, &shadow{})
	if !compared {
		r.settle()
		s.begin()
		fill() // faster than it is read
	}
	<-s.during
	a.truncate()
	s.end()
	r.settle()
	r.equal(a.path)
}

func TestJournalModeStays(t *testing.T) {
	a := newApp(t, sqlconn.Options{}, 1)
	c := captureIn(t, captureSpec{Path: a.path})
	c.caughtUp()
	a.exec("PRAGMA busy_timeout=0")
	if _, err := a.db.Exec("PRAGMA journal_mode=delete"); !sqlconn.IsBusy(err) {
		t.Errorf("%v, want SQLITE_BUSY", err)
	}
}

// A writer killed inside a transaction that has spilled leaves frames which are
// not committed.
func TestWriterKilledInTransaction(t *testing.T) {
	path := seeded(t, sqlconn.Options{})
	r := run(t, Config{Path: path}, &shadow{})
	for seed := range uint64(3) {
		p, reports := writeReporting(t, writerSpec{Path: path, Seed: seed, Statements: 20, Hold: true, Open: true, Options: sqlconn.Options{Journal: "wal", BusyTimeout: time.Second, CacheKiB: 20}})
		_, err := reports.WaitFor(t.Context(), p, func(r writerReport) (bool, error) { return r.Done > 0, nil })
		must(t, err)
		p.Kill()
		finish(t, write(t, writerSpec{Path: path, Seed: 100 + seed, Statements: 20}))
		r.settle()
		r.equal(path)
	}
}

func TestSeveralWritersAndSettings(t *testing.T) {
	path := seeded(t, sqlconn.Options{})
	r := run(t, Config{Path: path}, &shadow{})
	for _, sync := range []string{"off", "normal", "full"} {
		o := sqlconn.Options{Journal: "wal", BusyTimeout: 20 * time.Second, Synchronous: sync}
		p := write(t, writerSpec{Path: path, Seed: 1, Statements: 80, Checkpoints: 20, Options: o})
		q := write(t, writerSpec{Path: path, Seed: 2, Statements: 80, Checkpoints: 20, Options: o})
		finish(t, p)
		finish(t, q)
	}
	py := exec.CommandContext(t.Context(), "python3", "-c", `
import sqlite3, sys
c = sqlite3.connect(sys.argv[1], timeout=20, isolation_level=None)
for i in range(300):
    c.execute("INSERT INTO t(k, v) VALUES (?, zeroblob(100))", (str(i),))
    if i % 50 == 0: c.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
`, path)
	if out, err := py.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	r.settle()
	r.equal(path)
	if r.shadow.fulls != 1 {
		t.Errorf("%d full files", r.shadow.fulls)
	}
}

// While somebody reads for long the WAL grows, and Stats names who it is.
func TestLongReader(t *testing.T) {
	a := newApp(t, sqlconn.Options{}, 1)
	r := run(t, Config{Path: a.path, SoftWALLimit: 64 << 10}, &shadow{})
	reader, err := sqlconn.OpenOne(t.Context(), a.path, sqlconn.Options{Mode: "ro"})
	must(t, err)
	defer reader.Close()
	tx, err := reader.BeginTx(context.Background(), nil)
	must(t, err)
	var n int
	must(t, tx.QueryRow("SELECT count(*) FROM a").Scan(&n))
	await(t, "the reader to be named", func() bool { a.update(5); return len(r.c.Stats().Pinners) > 0 })
	r.settle()
	must(t, tx.Rollback())
	await(t, "a restart", func() bool { a.update(5); return r.c.Stats().WALFrames < 100 })
	r.settle()
	r.equal(a.path)
}
