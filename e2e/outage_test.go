package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/publisher"
	"github.com/ltxstream/ltxstream/subscriber"
	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/app"
	"github.com/ltxstream/ltxstream/testenv/faults"
	"github.com/ltxstream/ltxstream/testenv/foreign"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
	"github.com/ltxstream/ltxstream/wire"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/superfly/ltx"
)

// awayCommits are made while NATS is away.
const awayCommits = 900

// slowest is how long a slow machine may take for what takes a moment. A lock of ours
// that keeps somebody waiting does so to the end of the busy timeout.
const slowest = 30 * time.Second

// patientWAL is WAL with a busy timeout far beyond slowest.
func patientWAL() sqlconn.Options {
	o := sqlconn.WAL()
	o.BusyTimeout = 2 * slowest
	return o
}

// TestNATSAway: the application never notices, everything is in order on
// return, and the lag is back under a second within a quarter of the outage, or slowest.
func TestNATSAway(t *testing.T) {
	outages := map[string]func(*testing.T, *testenv.Server, *faults.Proxy) (back func()){
		"refused": func(t *testing.T, _ *testenv.Server, p *faults.Proxy) func() {
			p.Cut()
			return func() {
				if err := p.Restore(); err != nil {
					t.Fatal(err)
				}
			}
		},
		"silent": func(_ *testing.T, _ *testenv.Server, p *faults.Proxy) func() {
			p.Set(faults.Fault{BlackHole: true})
			return func() { p.Set(faults.Fault{}) }
		},
		"stopped": func(_ *testing.T, s *testenv.Server, _ *faults.Proxy) func() {
			s.Stop()
			return func() { s.Restart() }
		},
	}
	for name, cut := range outages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := testenv.Node(t)
			proxy := testenv.Proxy(t, srv.URL())
			js := testenv.JetStream(t, testenv.Connect(t, "nats://"+proxy.Addr()))
			f := paths(t)
			_, _ = testenv.Bank(t, f.primary, sqlconn.WAL(), seed(t))
			p, _ := publish(t, js, appDB, f.primary)
			s, _ := replicate(t, js, appDB, f.replica)
			settle(t, p, s)
			reader := watch(t, f.replica)
			writer := testenv.App(t, app.Config{Path: f.primary, DB: patientWAL(), Rate: 300})
			if _, err := writer.WaitFor(t.Context(), 100); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			back := cut(t, srv, proxy)
			before := writer.Progress().Report.Commits
			if _, err := writer.WaitFor(t.Context(), before+awayCommits); err != nil {
				t.Fatal(err)
			}
			if lag := p.Status().Lag; lag < 1 {
				t.Errorf("lag is %v seconds while NATS is away", lag)
			}
			outage := time.Since(began)
			pos := p.Status().Captured
			back()
			began = time.Now()
			testenv.Until(t, patience, "lag under a second", func() error {
				ps, ss := p.Status(), s.Status()
				if ps.Lag < 1 && ss.Lag < 1 && ss.TXID >= pos && ps.Acked >= pos {
					return nil
				}
				return fmt.Errorf("publisher %+v, subscriber %+v", ps, ss)
			})
			took := time.Since(began)
			rep, err := writer.Finish(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("away %v, back after %v; %s", outage, took, rep.Report)
			if limit := max(outage/4, slowest); took > limit {
				t.Errorf("lag back after %v, want %v", took, limit)
			}
			if rep.Report.Max > 10*time.Second { // one that waits for the outage to end never makes its commits
				t.Errorf("the application waited %v", rep.Report.Max)
			}
			settle(t, p, s)
			testenv.Finish(t, reader)
			testenv.Compare(t, f.primary, f.replica)
			expectNoReseed(t, s)
			expectFull(t, js, appDB, 1)
		})
	}
}

// keep copies the server's store as it is when the server is stopped.
func keep(t *testing.T, srv *testenv.Server) (putBack func()) {
	t.Helper()
	dir := srv.Config().Dir
	saved := filepath.Join(t.TempDir(), "store")
	srv.Stop()
	if err := os.CopyFS(saved, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	srv.Restart()
	return func() {
		srv.Stop()
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(dir, os.DirFS(saved)); err != nil {
			t.Fatal(err)
		}
		srv.Restart()
	}
}

// TestServerLosesAcknowledgedMessages puts an older copy of the server's store
// back. The publisher has what was lost and sends it again; a replica that is
// ahead of the stream waits for it.
func TestServerLosesAcknowledgedMessages(t *testing.T) {
	cases := map[string]struct {
		restartPub, restartSub bool
		idle                   bool // nothing is written after the loss
		big                    int  // bytes lost at least: more than the spool's tail keeps
		full                   int  // full files in the end
	}{
		"all running":          {full: 1},
		"idle afterwards":      {idle: true, full: 1},
		"publisher restarted":  {restartPub: true, full: 1},
		"subscriber restarted": {restartSub: true, full: 1},
		"beyond the spool":     {big: 68 << 20, full: 2},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := testenv.Node(t)
			js := srv.JetStream()
			f := paths(t)
			db, teller := testenv.Bank(t, f.primary, sqlconn.WAL(), seed(t))
			p, pr := publish(t, js, appDB, f.primary)
			s, sr := replicate(t, js, appDB, f.replica)
			transfers(t, teller, 20)
			settle(t, p, s)
			putBack := keep(t, srv)
			transfers(t, teller, 50)
			for lost := 0; lost < c.big; lost += 8 << 20 {
				if _, err := db.Exec("CREATE TABLE IF NOT EXISTS big(b)"); err != nil {
					t.Fatal(err)
				}
				if _, err := db.Exec("INSERT INTO big VALUES (randomblob(8388608))"); err != nil {
					t.Fatal(err)
				}
				if _, err := db.Exec("DELETE FROM big"); err != nil {
					t.Fatal(err)
				}
				syncNow(t, p)
			}
			lost := settle(t, p, s)
			reader := watch(t, f.replica)
			if c.restartSub {
				sr.mustStop(t)
			}
			if c.restartPub {
				pr.mustStop(t)
			}
			putBack()
			if c.restartPub {
				p, _ = publish(t, js, appDB, f.primary)
			}
			if c.restartSub {
				s, _ = replicate(t, js, appDB, f.replica)
			}
			if !c.idle {
				transfers(t, teller, 50)
			}
			settle(t, p, s)
			testenv.Until(t, patience, "what was lost", func() error {
				if n := head(t, js, appDB); n < uint64(lost.TXID) {
					return fmt.Errorf("head is TXID %d, %d was acknowledged", n, lost.TXID)
				}
				return nil
			})
			transfers(t, teller, 50)
			settle(t, p, s)
			testenv.Finish(t, reader)
			third := filepath.Join(f.dir, "third.db")
			s3, _ := replicate(t, js, appDB, third)
			equalAt(t, settle(t, p, s, s3), f.primary, f.replica, third)
			expectFull(t, js, appDB, c.full)
			if c.full == 1 {
				expectNoReseed(t, s)
			}
		})
	}
}

// head returns the TXID at the end of the stream.
func head(t *testing.T, js jetstream.JetStream, db wire.DB) (txid uint64) {
	t.Helper()
	for _, m := range history(t, js, db) {
		if meta, err := wire.ParseMeta(m.header); err == nil {
			txid = uint64(meta.Max)
		}
	}
	return txid
}

// endOf returns the checksum at the end of the stream; 0: it is empty.
func endOf(t *testing.T, js jetstream.JetStream) (sum ltx.Checksum) {
	t.Helper()
	for _, m := range history(t, js, appDB) {
		if meta, err := wire.ParseMeta(m.header); err == nil {
			sum = meta.Post
		}
	}
	return sum
}

// TestStreamTakenAway: purged, deleted, or deleted and made anew while both
// roles run. An empty stream is never "no data": the publisher begins it with a
// full file under the same chain.
func TestStreamTakenAway(t *testing.T) {
	harm := map[string]func(*testing.T, jetstream.JetStream) error{
		"purged": func(t *testing.T, js jetstream.JetStream) error {
			s, err := js.Stream(t.Context(), wire.DefaultStream)
			if err != nil {
				return err
			}
			return s.Purge(t.Context())
		},
		"deleted": func(t *testing.T, js jetstream.JetStream) error {
			return js.DeleteStream(t.Context(), wire.DefaultStream)
		},
		"recreated": func(t *testing.T, js jetstream.JetStream) error {
			if err := js.DeleteStream(t.Context(), wire.DefaultStream); err != nil {
				return err
			}
			_, err := stream.Ensure(t.Context(), js, stream.Config{}) // at once with the publisher, maybe
			return err
		},
	}
	for name, do := range harm {
		for _, idle := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s idle %v", name, idle), func(t *testing.T) {
				t.Parallel()
				srv := testenv.Node(t)
				js := srv.JetStream()
				f := paths(t)
				_, teller := testenv.Bank(t, f.primary, sqlconn.WAL(), seed(t))
				p, _ := publish(t, js, appDB, f.primary)
				s, _ := replicate(t, js, appDB, f.replica)
				transfers(t, teller, 50)
				before := settle(t, p, s)
				reader := watch(t, f.replica)
				if !idle {
					w := testenv.App(t, app.Config{Path: f.primary, DB: sqlconn.WAL(), Rate: 200, Limit: 400})
					if _, err := w.WaitFor(t.Context(), 50); err != nil {
						t.Fatal(err)
					}
					if err := do(t, js); err != nil {
						t.Fatal(err)
					}
					if _, err := w.Result(t.Context()); err != nil {
						t.Fatal(err)
					}
				} else {
					if err := do(t, js); err != nil {
						t.Fatal(err)
					}
					transfers(t, teller, 10)
				}
				after := syncNow(t, p)
				if end := endOf(t, js); end != after.PostApplyChecksum {
					t.Errorf("sync returned %s, the stream ends at checksum %s", after, end)
				}
				settle(t, p, s)
				if after.TXID <= before.TXID {
					t.Errorf("the chain began anew: %s after %s", after, before)
				}
				transfers(t, teller, 50)
				third := filepath.Join(f.dir, "third.db")
				s3, _ := replicate(t, js, appDB, third)
				settle(t, p, s, s3)
				testenv.Finish(t, reader)
				testenv.Compare(t, f.primary, f.replica, third)
				t.Logf("stream: %+v, re-seeds: %d", count(t, js, appDB), s.Status().Reseeds)
			})
		}
	}
}

// TestStreamTrimmedPastAReplica: a replica that was off while the stream was
// trimmed past it is seeded anew in place, under readers that have it open, and
// they never go back.
func TestStreamTrimmedPastAReplica(t *testing.T) {
	t.Parallel()
	srv := testenv.Node(t)
	js := srv.JetStream()
	f := paths(t)
	_, teller := testenv.Bank(t, f.primary, sqlconn.WAL(), seed(t))
	p, pr := publish(t, js, appDB, f.primary)
	s, sr := replicate(t, js, appDB, f.replica, smallWAL)
	transfers(t, teller, 100)
	settle(t, p, s)
	for round := range 2 {
		c := gatherReaders(t, f.replica)
		sr.mustStop(t)
		transfers(t, teller, 200)
		pr.mustStop(t)
		p, pr = publish(t, js, appDB, f.primary, func(c *publisher.Config) { c.ForceReseed = true })
		transfers(t, teller, 100)
		syncNow(t, p)
		trimToFull(t, js)
		s, sr = replicate(t, js, appDB, f.replica, smallWAL)
		transfers(t, teller, 100)
		settle(t, p, s)
		if st := s.Status(); st.State != subscriber.StateLive {
			t.Errorf("round %d: %+v", round, st)
		}
		transfers(t, teller, 100)
		settle(t, p, s)
		for name, r := range c {
			testenv.Until(t, patience, name+" at the end", func() error {
				want, err := lastSeq(t, f.primary)
				if got := r.Report().LastSeq; err == nil && got != want {
					err = fmt.Errorf("sees %d of %d, violation %v", got, want, r.Report().Violation)
				}
				return err
			})
		}
		c.disperse(t)
		testenv.Compare(t, f.primary, f.replica)
	}
}

// gatherReaders is a crowd without those that would write while nobody holds
// the replica.
func gatherReaders(t *testing.T, path string) crowd {
	t.Helper()
	c := crowd{}
	for name, cfg := range readersOf(path) {
		if cfg.Action == foreign.TryWrite || cfg.Action == foreign.Checkpoint || cfg.DB.Mode != "ro" {
			continue
		}
		if cfg.Action == foreign.Hold {
			cfg.Hold = holdSpan / 10
		}
		cfg.Path, cfg.Interval = path, time.Millisecond
		c[name] = testenv.Foreign(t, cfg)
	}
	for name, p := range c {
		if _, err := p.WaitFor(t.Context(), func(r foreign.Report) bool { return r.Checks > 0 }); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	return c
}

// lastSeq is the newest transfer of a bank.
func lastSeq(t *testing.T, path string) (seq int64, err error) {
	db, err := sqlconn.OpenOne(t.Context(), path, sqlconn.Options{Mode: "ro"})
	if err != nil {
		return 0, err
	}
	defer db.Close()
	return seq, db.QueryRow("SELECT seq FROM ledger").Scan(&seq)
}

// trimToFull removes everything before the newest full file.
func trimToFull(t *testing.T, js jetstream.JetStream) {
	t.Helper()
	var at uint64
	for _, m := range history(t, js, appDB) {
		if meta, err := wire.ParseMeta(m.header); err == nil && meta.Full && meta.Part == 1 {
			at = m.seq
		}
	}
	s, err := js.Stream(t.Context(), wire.DefaultStream)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Purge(t.Context(), jetstream.WithPurgeSubject(appDB.DataSubject()), jetstream.WithPurgeSequence(at)); err != nil {
		t.Fatal(err)
	}
}

// TestStreamTrimmedWithoutABase: nothing in the stream can serve a replica that
// is behind. It says so, goes on serving the old state, and follows as soon as
// there is a full file.
func TestStreamTrimmedWithoutABase(t *testing.T) {
	t.Parallel()
	srv := testenv.Node(t)
	js := srv.JetStream()
	f := paths(t)
	_, teller := testenv.Bank(t, f.primary, sqlconn.WAL(), seed(t))
	p, pr := publish(t, js, appDB, f.primary)
	s, sr := replicate(t, js, appDB, f.replica)
	transfers(t, teller, 20)
	old := settle(t, p, s)
	sr.mustStop(t)
	for range 30 {
		transfers(t, teller, 1)
		syncNow(t, p)
	}
	str, err := js.Stream(t.Context(), wire.DefaultStream)
	if err != nil {
		t.Fatal(err)
	}
	if err := str.Purge(t.Context(), jetstream.WithPurgeSubject(appDB.DataSubject()), jetstream.WithPurgeKeep(5)); err != nil {
		t.Fatal(err)
	}
	s, _ = replicate(t, js, appDB, f.replica)
	testenv.Until(t, patience, "broken", func() error {
		st := s.Status()
		if st.State != subscriber.StateBroken || st.Error == "" || st.TXID != old.TXID {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	pr.mustStop(t)
	p, _ = publish(t, js, appDB, f.primary, func(c *publisher.Config) { c.ForceReseed = true })
	transfers(t, teller, 20)
	equalAt(t, settle(t, p, s), f.primary, f.replica)
}
