package testenv

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/ltxstream/ltxstream/testenv/app"
	"github.com/ltxstream/ltxstream/testenv/bank"
	"github.com/ltxstream/ltxstream/testenv/faults"
	"github.com/ltxstream/ltxstream/testenv/foreign"
	"github.com/ltxstream/ltxstream/testenv/oracle"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
	"github.com/ltxstream/ltxstream/testenv/workload"
)

func TestNodeRestartsUnderAConnection(t *testing.T) {
	t.Parallel()
	s := Node(t, SyncAlways)
	js := s.JetStream()
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"x"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "x", nil); err != nil {
		t.Fatal(err)
	}
	s.Restart(func(c *Config) { c.SyncAlways = false })
	Until(t, patience, "the message after the restart", func() error {
		st, err := js.Stream(t.Context(), "S")
		if err == nil && st.CachedInfo().State.Msgs != 1 {
			err = errors.New("it is gone")
		}
		return err
	})
}

func TestKindsOfServers(t *testing.T) {
	t.Parallel()
	if _, err := Node(t, NoJetStream).JetStream().AccountInfo(t.Context()); err == nil {
		t.Error("there is JetStream")
	}
	users := Node(t, Users(User{Name: "u", Password: "p"}))
	users.Connect(nats.UserInfo("u", "p"))
	if nc, err := nats.Connect(users.URL()); err == nil {
		nc.Close()
		t.Error("connected without a user")
	}
	killed := NodeProcess(t)
	killed.Kill()
	killed.Restart()
	killed.Connect()
}

func TestProxyInFrontOfNATS(t *testing.T) {
	t.Parallel()
	s := Node(t)
	p := Proxy(t, s.URL())
	nc := Connect(t, "nats://"+p.Addr())
	p.Set(faults.Fault{Latency: 20 * time.Millisecond})
	if rtt, err := nc.RTT(); err != nil || rtt < 40*time.Millisecond {
		t.Errorf("rtt %s, %v", rtt, err)
	}
	p.Cut()
	Until(t, patience, "the disconnection", func() error {
		if nc.IsConnected() {
			return errors.New("connected")
		}
		return nil
	})
	if err := p.Restore(); err != nil {
		t.Fatal(err)
	}
	Until(t, patience, "the connection", func() error {
		if !nc.IsConnected() {
			return errors.New("disconnected")
		}
		return nil
	})
}

// Every facility on one database: an application, random SQL and foreign readers in their own processes; a copy is equal, and
// no longer after one more transfer.
func TestWorkloadsReadersOracle(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "app.db")
	db, teller := Bank(t, path, sqlconn.WAL(), 1)
	readers := []*foreign.Process{
		Foreign(t, foreign.Config{Path: path, DB: sqlconn.Options{Mode: "ro"}, Fresh: true}),
		Foreign(t, foreign.Config{Path: path, DB: sqlconn.Options{Mode: "ro"}, Runtime: foreign.Python, Interval: time.Millisecond}),
	}
	a := App(t, app.Config{Path: path, DB: sqlconn.WAL(), Rate: 500, Limit: 200})
	w := Workload(t, path, sqlconn.WAL(), workload.Config{Seed: 5}, 40)
	if p, err := a.Result(soon(t)); err != nil || p.Report.Commits != 200 {
		t.Fatalf("%s, %v", p.Report, err)
	}
	if err := w.Wait(soon(t)); err != nil {
		t.Fatal(err)
	}
	for _, r := range readers {
		if _, err := r.WaitFor(soon(t), func(r foreign.Report) bool { return r.LastSeq == 200 }); err != nil {
			t.Error(err)
		}
		t.Logf("%+v", Finish(t, r))
	}
	compareCopy(t, path, func() error {
		_, err := teller.Transfer(t.Context())
		return err
	})
	if _, err := bank.Check(t.Context(), db); err != nil {
		t.Error(err)
	}
}

func compareCopy(t *testing.T, path string, change func() error) {
	t.Helper()
	db := OpenDB(t, path, sqlconn.WAL())
	rebuilt := filepath.Join(t.TempDir(), "rebuilt.db")
	if _, err := db.Exec(fmt.Sprintf("VACUUM INTO '%s'", rebuilt)); err != nil {
		t.Fatal(err)
	}
	Compare(t, path, path)
	CompareRows(t, path, rebuilt)
	if err := change(); err != nil {
		t.Fatal(err)
	}
	d, ok := errors.AsType[*oracle.Difference](oracle.DiffRows(t.Context(), path, rebuilt))
	if !ok || d.What != "rows" {
		t.Errorf("after a change: %v", d)
	}
}

// The writer's commits and a probe in another process, joined.
func TestTracedAppAndProbe(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.db")
	Bank(t, path, sqlconn.WAL(), 1)
	probe := Foreign(t, foreign.Config{Action: foreign.Probe, Path: path, DB: sqlconn.Options{Mode: "ro"}, Interval: 100 * time.Microsecond})
	if _, err := probe.WaitFor(soon(t), func(r foreign.Report) bool { return r.Checks > 0 }); err != nil {
		t.Fatal(err)
	}
	p, err := TracedApp(t, app.Config{Path: path, DB: sqlconn.WAL(), Rate: 500, Limit: 100}).Result(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := probe.WaitFor(soon(t), func(r foreign.Report) bool { return r.LastSeq == 100 }); err != nil {
		t.Fatal(err)
	}
	if lags, missing := foreign.Lags(p.Commits, Finish(t, probe).Seen); len(lags) != 100 || missing != 0 {
		t.Errorf("%d lags, %d missing", len(lags), missing)
	}
}

func TestMissingProgramSkips(t *testing.T) {
	for _, c := range []struct {
		ci      string
		skipped bool
	}{{"", true}, {"true", false}} {
		t.Setenv("CI", c.ci)
		fake := &outcome{TB: t}
		func() {
			defer func() { _ = recover() }()
			missing(fake, "nothing", "install it")
		}()
		if fake.skipped != c.skipped || fake.failed == c.skipped {
			t.Errorf("CI=%q: skipped %v, failed %v", c.ci, fake.skipped, fake.failed)
		}
	}
}

// outcome is a testing.TB that only notes how it ended.
type outcome struct {
	testing.TB
	skipped, failed bool
}

func (o *outcome) Helper()               {}
func (o *outcome) Skipf(string, ...any)  { o.skipped = true; panic("skipped") }
func (o *outcome) Fatalf(string, ...any) { o.failed = true; panic("failed") }

// soon is a context for what should take a moment.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}
