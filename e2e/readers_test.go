package e2e

import (
	"database/sql"
	"os"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/app"
	"github.com/ltxstream/ltxstream/testenv/bank"
	"github.com/ltxstream/ltxstream/testenv/child"
	"github.com/ltxstream/ltxstream/testenv/foreign"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

// readersOf are processes of every kind on the replica; those that read judge
// every state they see, with a busy timeout of zero.
func readersOf(path string) map[string]foreign.Config {
	const big = 256 << 20
	return map[string]foreign.Config{
		"go ro long-lived mmap":       {DB: sqlconn.Options{Mode: "ro", MMap: big}},
		"go ro fresh":                 {DB: sqlconn.Options{Mode: "ro"}, Fresh: true, Interval: readerPause},
		"go rw long-lived small":      {DB: sqlconn.Options{Mode: "rw", CacheKiB: 2 << 10}, Interval: readerPause},
		"go ro holds a transaction":   {Action: foreign.Hold, Hold: holdSpan, Interval: holdSpan, DB: sqlconn.Options{Mode: "ro"}},
		"go tries to write":           {Action: foreign.TryWrite, Interval: 10 * time.Millisecond, DB: sqlconn.Options{Mode: "rw"}},
		"go truncates":                {Action: foreign.Checkpoint, Mode: "TRUNCATE", Interval: 15 * time.Millisecond, DB: sqlconn.Options{Mode: "rw"}},
		"python ro long-lived cache":  {Runtime: foreign.Python, DB: sqlconn.Options{Mode: "ro", CacheKiB: 200 << 10}, Interval: readerPause},
		"python rw fresh mmap":        {Runtime: foreign.Python, Fresh: true, Interval: readerPause, DB: sqlconn.Options{Mode: "rw", MMap: big}},
		"python holds a transaction":  {Runtime: foreign.Python, Action: foreign.Hold, Hold: holdSpan / 4, Interval: holdSpan / 2, DB: sqlconn.Options{Mode: "ro", MMap: big}},
		"python tries to write fresh": {Runtime: foreign.Python, Action: foreign.TryWrite, Fresh: true, Interval: 10 * time.Millisecond, DB: sqlconn.Options{Mode: "rw"}},
	}
}

// crowd is processes at work on one replica.
type crowd map[string]*foreign.Process

func gather(t *testing.T, path string) crowd {
	t.Helper()
	c := crowd{}
	for name, cfg := range readersOf(path) {
		cfg.Path = path
		c[name] = testenv.Foreign(t, cfg)
	}
	return c
}

// checks returns how many states were judged, and fails at a violation.
func (c crowd) checks(t *testing.T) (n int64) {
	t.Helper()
	for name, p := range c {
		r := p.Report()
		if r.Violation != nil {
			t.Fatalf("%s: %v", name, r.Violation)
		}
		select {
		case <-p.Done():
			t.Fatalf("%s ended: %v", name, p.Err())
		default:
		}
		n += r.Checks
	}
	return n
}

// disperse ends all and returns the checks made. Every one must have had
// something to do.
func (c crowd) disperse(t *testing.T) (n int64) {
	t.Helper()
	for name, p := range c {
		r := testenv.Finish(t, p)
		t.Logf("%-28s %7d checks %6d states %6d rounds %5d busy, longest %v, sqlite %s", name, r.Checks, r.States, r.Rounds, r.Busy, r.MaxRound.Round(time.Millisecond), r.SQLite)
		if r.Rounds == 0 {
			t.Errorf("%s did nothing", name)
		}
		n += r.Checks
	}
	return n
}

// TestReadersOfTheReplica: never torn, never backwards, never SQLITE_BUSY; a
// stray writer always gets SQLITE_BUSY; checkpointers and killed readers do no
// harm; and no reader is older than the position it waited for.
func TestReadersOfTheReplica(t *testing.T) {
	t.Parallel()
	srv := testenv.Node(t)
	js := srv.JetStream()
	f := paths(t)
	early := newEarlyReader(t, f.replica)
	s, _ := replicate(t, js, appDB, f.replica, smallWAL)
	_, teller := testenv.Bank(t, f.primary, sqlconn.WAL(), seed(t))
	p, _ := publish(t, js, appDB, f.primary)
	settle(t, p, s)
	if rep := early.mustSee(t, 1); rep.Waiting == 0 {
		t.Error("the early reader was not early")
	}

	writer := testenv.App(t, app.Config{Path: f.primary, DB: sqlconn.WAL(), Seed: 7, Rate: 300, NoteBytes: 400})
	c := gather(t, f.replica)
	waits, lived := 0, testenv.OpenDB(t, f.replica, sqlconn.Options{Mode: "ro"})
	victims := 0
	for c.checks(t) < readerChecks || writer.Progress().Report.Commits < 900 || victims < 5 {
		victims += killOneReader(t, f.replica)
		for range 10 {
			want := transfers(t, teller, 1)
			pos := syncNow(t, p)
			if _, err := s.WaitFor(t.Context(), pos.TXID); err != nil {
				t.Fatal(err)
			}
			notOlder(t, "long-lived", lived, want)
			once := testenv.OpenDB(t, f.replica, sqlconn.Options{Mode: "ro"})
			notOlder(t, "fresh", once, want)
			_ = once.Close()
			waits++
		}
	}
	rep, err := writer.Finish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	settle(t, p, s)
	total := c.disperse(t)
	st := s.Status()
	t.Logf("%d checks, %d waits, %d readers killed, %s; stream: %+v; replica: %d files applied in %v, %d restarts, %d blocked, longest pause %v",
		total, waits, victims, rep.Report, count(t, js, appDB), st.Files, st.Replica.ApplyTime, st.Replica.Restarts, st.Replica.RestartsBlocked, st.Replica.LongestPause)
	_ = lived.Close()
	early.mustSee(t, 2)
	testenv.Compare(t, f.primary, f.replica)
	expectNoReseed(t, s)
}

// killOneReader kills a reader that has a transaction open.
func killOneReader(t *testing.T, path string) int {
	t.Helper()
	p := testenv.Foreign(t, foreign.Config{Path: path, Action: foreign.Hold, Hold: time.Hour, DB: sqlconn.Options{Mode: "rw"}})
	if _, err := p.WaitFor(t.Context(), func(r foreign.Report) bool { return r.Checks > 0 }); err != nil {
		t.Fatal(err)
	}
	p.Kill()
	return 1
}

func notOlder(t *testing.T, who string, db *sql.DB, want int64) {
	t.Helper()
	st, err := bank.Check(t.Context(), db)
	if err != nil {
		t.Fatalf("%s reader: %v", who, err)
	}
	if st.Seq < want {
		t.Fatalf("%s reader sees %d, it waited for %d", who, st.Seq, want)
	}
}

type earlyReader struct {
	*child.Process
	reports *child.Reports[earlyReport]
}

// newEarlyReader starts a process that has opened the replica before there is
// one.
func newEarlyReader(t *testing.T, path string) *earlyReader {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	e := &earlyReader{reports: child.NewReports(earlyReport{}, nil)}
	var err error
	if e.Process, err = child.Start("e2e-early-reader", earlySpec{Path: path, DB: sqlconn.Options{Mode: "rw", MMap: 256 << 20}}, e.reports.Line); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Kill)
	if _, err := e.reports.WaitFor(t.Context(), e.Process, func(r earlyReport) (bool, error) { return r.Waiting > 0, nil }); err != nil {
		t.Fatal(err)
	}
	return e
}

// mustSee waits for n more looks at the bank.
func (e *earlyReader) mustSee(t *testing.T, n int) earlyReport {
	t.Helper()
	now, err := e.reports.Last()
	if err != nil {
		t.Fatal(err)
	}
	rep, err := e.reports.WaitFor(t.Context(), e.Process, func(r earlyReport) (bool, error) { return r.Checks >= now.Checks+n, nil })
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

// TestClosingConnectionsBusyNobody: a SQLite connection that closes tries for
// the EXCLUSIVE lock, and whoever opens the database in that moment gets
// SQLITE_BUSY; between plain connections that happens within a second. Not on a
// replica, and not on a primary.
func TestClosingConnectionsBusyNobody(t *testing.T) {
	t.Parallel()
	srv := testenv.Node(t)
	f := paths(t)
	_, teller := testenv.Bank(t, f.primary, sqlconn.WAL(), 1)
	p, _ := publish(t, srv.JetStream(), appDB, f.primary)
	s, _ := replicate(t, srv.JetStream(), appDB, f.replica)
	settle(t, p, s)
	c := crowd{}
	for _, path := range []string{f.primary, f.replica} {
		c["python closes "+path] = testenv.Foreign(t, foreign.Config{Runtime: foreign.Python, Path: path, Fresh: true, DB: sqlconn.Options{Mode: "rw"}})
		c["go closes "+path] = testenv.Foreign(t, foreign.Config{Path: path, Fresh: true, DB: sqlconn.Options{Mode: "rw"}})
		c["go opens "+path] = testenv.Foreign(t, foreign.Config{Path: path, Fresh: true, DB: sqlconn.Options{Mode: "ro"}})
	}
	for c.checks(t) < 4000 {
		transfers(t, teller, 1)
	}
	c.disperse(t)
	equalAt(t, settle(t, p, s), f.primary, f.replica)
}
