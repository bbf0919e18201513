package e2e

import (
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/embedded"
	"github.com/ltxstream/ltxstream/publisher"
	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/bank"
	"github.com/ltxstream/ltxstream/testenv/foreign"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
	"github.com/nats-io/nats.go/jetstream"
)

// embeddedServer runs the product's own server in this process.
func embeddedServer(t *testing.T) jetstream.JetStream {
	t.Helper()
	srv, err := embedded.New(embedded.Config{Dir: t.TempDir(), Logger: logger(t, "nats")})
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Shutdown() })
	nc, err := srv.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return testenv.JetStream(t, nc)
}

// strangersOn are other processes that come and go on both files.
func strangersOn(t *testing.T, f files) crowd {
	t.Helper()
	pause := 5 * time.Millisecond
	c := crowd{
		"go fresh on primary":     testenv.Foreign(t, foreign.Config{Path: f.primary, Fresh: true, Interval: pause, DB: sqlconn.Options{Mode: "rw"}}),
		"python writes":           testenv.Foreign(t, foreign.Config{Runtime: foreign.Python, Action: foreign.Write, Fresh: true, Rate: 50, Path: f.primary, DB: sqlconn.WAL()}),
		"python fresh on replica": testenv.Foreign(t, foreign.Config{Runtime: foreign.Python, Path: f.replica, Fresh: true, Interval: pause, DB: sqlconn.Options{Mode: "rw"}}),
		"go tries to write":       testenv.Foreign(t, foreign.Config{Action: foreign.TryWrite, Fresh: true, Path: f.replica, Interval: pause, DB: sqlconn.Options{Mode: "rw"}}),
	}
	for name, p := range c {
		if _, err := p.WaitFor(t.Context(), func(r foreign.Report) bool { return r.Rounds > 0 }); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	return c
}

// TestInProcessConnections: publisher, two subscribers and go-sqlite3
// connections of the application in one process, opening and closing on both
// files all the time. POSIX drops a process's locks when it closes any
// descriptor of a file: none of ours may be lost, or another process's last
// close deletes the WAL under us.
func TestInProcessConnections(t *testing.T) {
	t.Parallel()
	srv := embeddedServer(t)
	f := paths(t)
	_, teller := testenv.Bank(t, f.primary, sqlconn.WAL(), seed(t))
	p, pr := publish(t, srv, appDB, f.primary, func(c *publisher.Config) { c.SoftWALLimit = 128 << 10 })
	s, sr := replicate(t, srv, appDB, f.replica, smallWAL)
	settle(t, p, s)
	strangers := strangersOn(t, f)
	for round := range 40 {
		transfers(t, teller, 20)
		for _, path := range []string{f.primary, f.replica} {
			db := testenv.OpenDB(t, path, sqlconn.Options{Mode: "rw", MMap: int64(round%2) << 28})
			if _, err := bank.Check(t.Context(), db); err != nil {
				t.Fatal(err)
			}
			_ = db.Close()
		}
		if db := testenv.OpenDB(t, f.primary, sqlconn.WAL()); round%4 == 0 {
			other, err := bank.NewTeller(t.Context(), db, uint64(round), 500)
			if err != nil {
				t.Fatal(err)
			}
			transfers(t, other, 5)
			_ = other.Close()
			_ = db.Close()
		}
		if db := testenv.OpenDB(t, f.replica, sqlconn.Options{Mode: "rw"}); round%3 == 0 {
			if _, err := db.Exec("UPDATE ledger SET total = total"); !sqlconn.IsBusy(err) {
				t.Fatalf("a write to the replica: %v", err)
			}
			_ = db.Close()
		}
		if round%10 == 9 {
			settleAtLeast(t, p, s)
			strangers.checks(t)
			pr.mustStop(t) // roles come and go while connections stay
			p, pr = publish(t, srv, appDB, f.primary, func(c *publisher.Config) { c.SoftWALLimit = 128 << 10 })
			if round == 19 {
				strangers.disperse(t) // nobody may write to the replica while we are away
				sr.mustStop(t)
				s, sr = replicate(t, srv, appDB, f.replica, smallWAL)
				settle(t, p, s)
				strangers = strangersOn(t, f)
			}
		}
	}
	strangers.disperse(t)
	equalAt(t, settle(t, p, s), f.primary, f.replica)
	expectNoReseed(t, s)
}
