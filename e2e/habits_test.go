package e2e

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/publisher"
	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/app"
	"github.com/ltxstream/ltxstream/testenv/bank"
	"github.com/ltxstream/ltxstream/testenv/foreign"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
	"github.com/ltxstream/ltxstream/testenv/workload"
)

// settings are what applications set on their connections.
func settings() (all []sqlconn.Options) {
	for _, auto := range []int{-1, 1, 1000} {
		for _, sync := range []string{"off", "normal", "full"} {
			for _, mmap := range []int64{0, 256 << 20} {
				all = append(all, sqlconn.Options{Journal: "wal", BusyTimeout: 20 * time.Second, AutoCheckpoint: auto, Synchronous: sync, MMap: mmap})
			}
		}
	}
	return all
}

// TestSettingsOfTheApplication: every combination of wal_autocheckpoint,
// synchronous and mmap_size, on processes of two versions of SQLite that write
// at the same time; each closes the database, at times as the last, and comes
// again.
func TestSettingsOfTheApplication(t *testing.T) {
	t.Parallel()
	rnd := random(seed(t))
	f := paths(t)
	db, teller := testenv.Bank(t, f.primary, sqlconn.WAL(), 1)
	transfers(t, teller, 10)
	_ = teller.Close()
	_ = db.Close()
	p, s := replicatedPair(t, f)
	settle(t, p, s)
	reader := watch(t, f.replica)
	versions := map[string]bool{}
	all := settings()
	rnd.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for i, o := range all {
		goes := testenv.Foreign(t, foreign.Config{Action: foreign.Write, Path: f.primary, DB: o, Seed: rnd.Uint64(), Limit: 40, Fresh: i%3 == 0})
		python := testenv.Foreign(t, foreign.Config{Runtime: foreign.Python, Action: foreign.Write, Path: f.primary, DB: all[rnd.IntN(len(all))], Seed: rnd.Uint64(), Limit: 40, Fresh: i%3 == 1})
		for _, w := range []*foreign.Process{goes, python} {
			if err := w.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			r := w.Report()
			if r.Violation != nil || r.Writes == 0 {
				t.Fatalf("%+v: %+v", o, r)
			}
			versions[r.SQLite] = true
		}
		if i%3 == 2 {
			equalAt(t, settle(t, p, s), f.primary, f.replica)
		}
	}
	settle(t, p, s)
	testenv.Finish(t, reader)
	testenv.Compare(t, f.primary, f.replica)
	expectNoReseed(t, s)
	if len(versions) < 2 {
		t.Logf("one version of SQLite only: %v", versions)
	}
}

// checkpointer is another process of the application that does nothing else.
func checkpointer(t *testing.T, path, mode string, timeout, pause time.Duration) *foreign.Process {
	t.Helper()
	p := testenv.Foreign(t, foreign.Config{Action: foreign.Checkpoint, Mode: mode, Path: path, Interval: pause, DB: sqlconn.Options{Mode: "rw", BusyTimeout: timeout}})
	if _, err := p.WaitFor(t.Context(), func(r foreign.Report) bool { return r.Rounds > 0 }); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestTwoCheckpointers: processes that checkpoint at the same time, in every
// mode, each with a busy timeout and without, while others write. Writers are
// never refused, and nobody stalls.
func TestTwoCheckpointers(t *testing.T) {
	for _, modes := range [][2]string{{"TRUNCATE", "TRUNCATE"}, {"RESTART", "TRUNCATE"}, {"FULL", "RESTART"}, {"PASSIVE", "TRUNCATE"}} {
		for _, timeout := range []time.Duration{0, 2 * slowest} {
			t.Run(fmt.Sprint(modes, " busy timeout ", timeout), func(t *testing.T) {
				t.Parallel()
				f := paths(t)
				_, teller := testenv.Bank(t, f.primary, sqlconn.WAL(), seed(t))
				p, s := replicatedPair(t, f)
				settle(t, p, s)
				c := crowd{
					"one":   checkpointer(t, f.primary, modes[0], timeout, 3*time.Millisecond),
					"other": checkpointer(t, f.primary, modes[1], timeout, 4*time.Millisecond),
				}
				writer := testenv.App(t, app.Config{Path: f.primary, DB: patientWAL(), Rate: 300, NoteBytes: 500, Limit: checkpointedWrites})
				rep, err := writer.Result(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				t.Log(rep.Report)
				if rep.Report.Busy > 0 || rep.Report.Max > slowest { // a checkpoint kept waiting by us lasts for its busy timeout
					t.Errorf("the writer was held up: %s", rep.Report)
				}
				c.checkRounds(t)
				transfers(t, teller, 20)
				equalAt(t, settle(t, p, s), f.primary, f.replica)
				expectNoReseed(t, s)
			})
		}
	}
}

// checkRounds ends processes that judge nothing. None may have waited long.
func (c crowd) checkRounds(t *testing.T) {
	t.Helper()
	for name, p := range c {
		r := testenv.Finish(t, p)
		t.Logf("%s: %d rounds, %d busy, longest %v", name, r.Rounds, r.Busy, r.MaxRound.Round(time.Millisecond))
		if r.Rounds < 3 || r.MaxRound > slowest {
			t.Errorf("%s made %d rounds, the longest took %v", name, r.Rounds, r.MaxRound)
		}
	}
}

// TestCheckpointerKilled: a process is killed inside its checkpoint, again and
// again, at the moments in which it waits for us or has just been let through.
func TestCheckpointerKilled(t *testing.T) {
	t.Parallel()
	rnd := random(seed(t))
	f := paths(t)
	_, teller := testenv.Bank(t, f.primary, sqlconn.WAL(), 1)
	p, s := replicatedPair(t, f)
	settle(t, p, s)
	reader := watch(t, f.replica)
	writer := testenv.App(t, app.Config{Path: f.primary, DB: patientWAL(), Rate: 300, NoteBytes: 500})
	for i := range killedCheckpointers {
		mode := []string{"TRUNCATE", "RESTART"}[i%2]
		c := checkpointer(t, f.primary, mode, 2*slowest, 0)
		<-time.After(time.Duration(rnd.IntN(20_000)) * time.Microsecond) // the random moment
		c.Kill()
		if i%5 == 4 {
			settleAtLeast(t, p, s)
		}
	}
	rep, err := writer.Finish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Log(rep.Report)
	if rep.Report.Busy > 0 || rep.Report.Max > slowest {
		t.Errorf("the writer was held up: %s", rep.Report)
	}
	transfers(t, teller, 20)
	settle(t, p, s)
	testenv.Finish(t, reader)
	testenv.Compare(t, f.primary, f.replica)
	expectNoReseed(t, s)
}

// TestWriterComesFirst: right behind every RESTART and TRUNCATE several writers
// contend for the first frame of the new generation, so that whoever lets a
// checkpointer through finds frames there already.
func TestWriterComesFirst(t *testing.T) {
	t.Parallel()
	comeFirst(t, 200, firstWriterCheckpoints)
}

// TestSaturatingWriters is that with writers that never pause. They would leave
// other tests no processor: it is not parallel.
func TestSaturatingWriters(t *testing.T) {
	comeFirst(t, 0, saturatedCheckpoints)
}

func comeFirst(t *testing.T, rate float64, checkpoints int) {
	t.Helper()
	f := paths(t)
	_, _ = testenv.Bank(t, f.primary, sqlconn.WAL(), seed(t))
	p, s := replicatedPair(t, f)
	settle(t, p, s)
	reader := watch(t, f.replica)
	c := crowd{}
	for i := range 3 {
		o := sqlconn.Options{Journal: "wal", AutoCheckpoint: -1} // refused ones try again at once: nobody sleeps on a lock
		c[fmt.Sprint("writer ", i)] = testenv.Foreign(t, foreign.Config{Action: foreign.Write, Path: f.primary, DB: o, Seed: uint64(i), Rate: rate})
	}
	ckpt := testenv.OpenDB(t, f.primary, patientWAL())
	for i := range checkpoints {
		before, err := lastSeq(t, f.primary)
		if err != nil {
			t.Fatal(err)
		}
		testenv.Until(t, patience, "the writers to be at work", func() error {
			if seq, err := lastSeq(t, f.primary); err != nil || seq < before+3 {
				return fmt.Errorf("transfer %d: %v", seq, err)
			}
			return nil
		})
		if i%4 == 0 {
			settleAtLeastWithin(t, 4*patience, p, s) // then it is let through at once
		}
		mode := []string{"TRUNCATE", "RESTART"}[i%2]
		began := time.Now()
		res, err := sqlconn.Checkpoint(context.WithoutCancel(t.Context()), ckpt, mode)
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > slowest {
			t.Errorf("%s %d: %+v after %v", mode, i, res, took)
		}
	}
	settleAtLeastWithin(t, 4*patience, p, s)
	for name, w := range c {
		r := testenv.Finish(t, w)
		t.Logf("%s: %d writes, %d busy, longest %v", name, r.Writes, r.Busy, r.MaxRound)
	}
	t.Logf("%+v", p.Status().Capture)
	settle(t, p, s)
	testenv.Finish(t, reader)
	testenv.Compare(t, f.primary, f.replica)
	expectNoReseed(t, s)
}

// TestLongReadTransactionOnThePrimary: the WAL cannot be restarted for as long
// as somebody reads; what is committed meanwhile is replicated all the same,
// the reader stays where it is, and afterwards the WAL becomes small again.
func TestLongReadTransactionOnThePrimary(t *testing.T) {
	t.Parallel()
	f := paths(t)
	_, teller := testenv.Bank(t, f.primary, sqlconn.WAL(), seed(t))
	transfers(t, teller, 10)
	p, s := replicatedPair(t, f, func(c *publisher.Config) { c.SoftWALLimit = 128 << 10 })
	settle(t, p, s)
	hold := crowd{
		"go":     testenv.Foreign(t, foreign.Config{Action: foreign.Hold, Hold: longRead, Path: f.primary, Limit: 1, DB: sqlconn.Options{Mode: "ro"}}),
		"python": testenv.Foreign(t, foreign.Config{Runtime: foreign.Python, Action: foreign.Hold, Hold: longRead, Path: f.primary, Limit: 1, DB: sqlconn.Options{Mode: "ro", MMap: 256 << 20}}),
	}
	for name, h := range hold {
		if _, err := h.WaitFor(t.Context(), func(r foreign.Report) bool { return r.Checks > 0 }); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	o := sqlconn.WAL()
	o.AutoCheckpoint = -1 // nobody else makes the WAL small again
	writer := testenv.App(t, app.Config{Path: f.primary, DB: o, Rate: 400, NoteBytes: 1000})
	grown := false
	for held := true; held; {
		settleAtLeast(t, p, s)
		grown = grown || p.Status().Capture.WALBytes > 512<<10
		held = false
		for _, h := range hold {
			select {
			case <-h.Done():
			default:
				held = true
			}
		}
	}
	if !grown {
		t.Error("the WAL did not grow: nobody held it")
	}
	for name, h := range hold {
		if err := h.Wait(t.Context()); err != nil || h.Report().Violation != nil || h.Report().States != 1 {
			t.Errorf("%s: %v, %+v", name, err, h.Report())
		}
	}
	testenv.Until(t, patience, "a small WAL", func() error {
		if b := p.Status().Capture.WALBytes; b > 512<<10 {
			return fmt.Errorf("%d bytes of WAL: %+v", b, p.Status().Capture)
		}
		return nil
	})
	if _, err := writer.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	equalAt(t, settle(t, p, s), f.primary, f.replica)
	expectNoReseed(t, s)
}

// TestWriterKilledInTransaction: random work with large transactions that spill
// frames into the WAL before they commit, killed at random moments.
func TestWriterKilledInTransaction(t *testing.T) {
	t.Parallel()
	rnd := random(seed(t))
	f := paths(t)
	db, teller := testenv.Bank(t, f.primary, sqlconn.WAL(), 1)
	p, s := replicatedPair(t, f)
	settle(t, p, s)
	reader := watch(t, f.replica)
	for range killedWriters {
		o := sqlconn.Options{Journal: "wal", BusyTimeout: 10 * time.Second, CacheKiB: 20}
		mustExec(t, db, dropWorkload(t, db)...) // each begins with its own tables
		w := testenv.Workload(t, f.primary, o, workload.Config{Seed: rnd.Uint64(), MaxBlob: 60_000}, 0)
		if _, err := w.WaitFor(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Duration(rnd.IntN(30_000)) * time.Microsecond) // the random moment
		w.Kill()
		transfers(t, teller, rnd.IntN(3)) // over the frames that it left, or not
		equalAt(t, settle(t, p, s), f.primary, f.replica)
	}
	testenv.Finish(t, reader)
	expectNoReseed(t, s)
}

// dropWorkload drops the tables of a workload that was killed.
func dropWorkload(t *testing.T, db *sql.DB) (all []string) {
	t.Helper()
	rows, err := db.Query("SELECT name FROM sqlite_schema WHERE type = 'table' AND name GLOB 't[0-9]*'")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		all = append(all, "DROP TABLE "+name)
	}
	return all
}

// logBook keeps what is logged.
type logBook struct {
	mu  sync.Mutex
	all strings.Builder
}

func (l *logBook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(b)
}

func (l *logBook) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.all.String(), text)
}

func (l *logBook) logger() func(*publisher.Config) {
	return func(c *publisher.Config) { c.Logger = slog.New(slog.NewTextHandler(l, nil)) }
}

// TestRollbackJournalIsSwitched: a database in each rollback mode, with the
// application writing, is put into WAL mode, and the log says so.
func TestRollbackJournalIsSwitched(t *testing.T) {
	for _, mode := range []string{"delete", "truncate", "persist"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			f := paths(t)
			o := sqlconn.Options{Journal: mode, BusyTimeout: 10 * time.Second}
			_, teller := testenv.Bank(t, f.primary, o, seed(t))
			transfers(t, teller, 20)
			o.Journal = "" // it leaves the mode to whoever sets it
			writer := testenv.App(t, app.Config{Path: f.primary, DB: o, Rate: 300})
			if _, err := writer.WaitFor(t.Context(), 10); err != nil {
				t.Fatal(err)
			}
			var book logBook
			p, s := replicatedPair(t, f, book.logger())
			settleAtLeast(t, p, s)
			if !book.has("switched to wal mode") {
				t.Errorf("it is not said that the journal mode was changed:\n%s", book.all.String())
			}
			if _, err := writer.Finish(t.Context()); err != nil {
				t.Fatal(err)
			}
			transfers(t, teller, 20)
			equalAt(t, settle(t, p, s), f.primary, f.replica)
		})
	}
}

// TestJournalModeSwitchedBack: the application takes the database out of WAL
// mode. While the publisher runs that is refused with SQLITE_BUSY; while it is
// down it works, and what was committed there becomes a delta.
func TestJournalModeSwitchedBack(t *testing.T) {
	for _, mode := range []string{"DELETE", "TRUNCATE", "PERSIST", "MEMORY", "OFF"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			js := testenv.Node(t).JetStream()
			f := paths(t)
			db, teller := testenv.Bank(t, f.primary, sqlconn.Options{Journal: "wal", BusyTimeout: 200 * time.Millisecond}, seed(t))
			p, pr := publish(t, js, appDB, f.primary)
			s, _ := replicate(t, js, appDB, f.replica)
			transfers(t, teller, 20)
			settle(t, p, s)
			for range 3 {
				var got string
				err := db.QueryRow("PRAGMA journal_mode=" + mode).Scan(&got)
				if !sqlconn.IsBusy(err) && got != "wal" {
					t.Fatalf("journal mode %q, %v", got, err)
				}
				transfers(t, teller, 5)
				settle(t, p, s)
			}
			pr.mustStop(t)
			mustExec(t, db, "PRAGMA journal_mode="+mode)
			transfers(t, teller, 30)
			var got string
			if err := db.QueryRow("PRAGMA journal_mode").Scan(&got); err != nil || !strings.EqualFold(got, mode) {
				t.Fatalf("journal mode %q, %v: the test is none", got, err)
			}
			p, _ = publish(t, js, appDB, f.primary)
			transfers(t, teller, 20)
			equalAt(t, settle(t, p, s), f.primary, f.replica)
			expectNoReseed(t, s)
			expectFull(t, js, appDB, 1)
		})
	}
}

// TestExclusiveLocking: a database held by locking_mode=EXCLUSIVE is a clear
// error at the start. While the publisher runs nobody gets such a lock; the
// application that asks for it is refused, or goes on without.
func TestExclusiveLocking(t *testing.T) {
	t.Parallel()
	js := testenv.Node(t).JetStream()
	f := paths(t)
	o := sqlconn.WAL()
	o.Exclusive = true
	db, teller := testenv.Bank(t, f.primary, o, seed(t))
	transfers(t, teller, 10)
	_, pr := publish(t, js, appDB, f.primary)
	if err := pr.ended(t); err == nil || !strings.Contains(err.Error(), "EXCLUSIVE") {
		t.Fatalf("%v: the cause is not named", err)
	}
	transfers(t, teller, 10) // it was not disturbed
	_ = teller.Close()
	_ = db.Close()

	p, _ := publish(t, js, appDB, f.primary)
	s, _ := replicate(t, js, appDB, f.replica)
	settle(t, p, s)
	o.BusyTimeout = 100 * time.Millisecond
	for range 5 {
		late, err := sqlconn.OpenOne(t.Context(), f.primary, o)
		if err == nil {
			if teller, err = bank.NewTeller(t.Context(), late, 3, 0); err == nil {
				_, err = teller.Transfer(t.Context())
				_ = teller.Close()
			}
			_ = late.Close()
		}
		if err != nil && !sqlconn.IsBusy(err) {
			t.Fatal(err)
		}
		t.Logf("exclusive while we run: %v", err)
		settle(t, p, s)
	}
	_, teller = testenv.Bank(t, f.primary, sqlconn.WAL(), 4)
	transfers(t, teller, 20)
	equalAt(t, settle(t, p, s), f.primary, f.replica)
	expectNoReseed(t, s)
}

// TestNotADatabase: what cannot be published is refused with its reason, before
// anything is claimed or written, and is left as it was.
func TestNotADatabase(t *testing.T) {
	t.Parallel()
	js := testenv.Node(t).JetStream()
	rnd := random(seed(t))
	encrypted := make([]byte, 8192) // an SQLCipher file begins with its salt
	for i := range encrypted {
		encrypted[i] = byte(rnd.Uint32())
	}
	for name, content := range map[string][]byte{
		"text":                   []byte(strings.Repeat("hello world\n", 1000)),
		"encrypted header":       encrypted,
		"encrypted behind magic": append([]byte("SQLite format 3\x00"), encrypted...),
		"two bytes":              []byte("xy"),
	} {
		f := paths(t)
		if err := os.WriteFile(f.primary, content, 0o644); err != nil {
			t.Fatal(err)
		}
		_, pr := publish(t, js, appDB, f.primary)
		if err := pr.ended(t); err == nil || !strings.Contains(err.Error(), "not a SQLite database") && !strings.Contains(err.Error(), "malformed") {
			t.Errorf("%s: %v", name, err)
		}
		if got, err := os.ReadFile(f.primary); err != nil || string(got) != string(content) {
			t.Errorf("%s: the file was changed: %v", name, err)
		}
	}
	if _, err := js.Stream(t.Context(), "LTX"); err == nil {
		if c := count(t, js, appDB); c.messages != 0 {
			t.Errorf("the stream holds %+v", c)
		}
	}
}
