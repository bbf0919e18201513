package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/publisher"
	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/app"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

// residentKiB is the memory of a process.
func residentKiB(t *testing.T, pid int) (kib int64) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), "statm"))
	if err != nil {
		t.Skipf("memory of a process: %v", err)
	}
	var total, resident int64
	if _, err := fmt.Sscan(string(b), &total, &resident); err != nil {
		t.Fatal(err)
	}
	return resident * int64(os.Getpagesize()) / 1024
}

// TestAnHourWithoutNATS: the application makes 1,000 transactions a second.
// The spool stays inside its limit, memory does not grow, somebody says
// what is wrong; when NATS is back all is in order within a quarter of the
// time, or slowest. make test simulates the hour by limits that are as much smaller.
func TestAnHourWithoutNATS(t *testing.T) {
	t.Parallel()
	const slack = 1 << 20 // one file more may have been begun
	f := paths(t)
	srv := testenv.Node(t)
	_, _ = testenv.Bank(t, f.primary, sqlconn.WAL(), seed(t))
	pub := runRole[pubReport](t, "e2e-publisher", roleSpec{URL: srv.URL(), DB: appDB, Path: f.primary, SpoolLimit: hourSpool})
	sub := runRole[subReport](t, "e2e-subscriber", roleSpec{URL: srv.URL(), DB: appDB, Path: f.replica})
	settleChildren(t, pub, sub)
	reader := watch(t, f.replica)
	writer := testenv.App(t, app.Config{Path: f.primary, DB: patientWAL(), Rate: 1000, NoteBytes: 200})
	if _, err := writer.WaitFor(t.Context(), 200); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	srv.Stop()
	var full time.Time
	var fullKiB, maxSpool int64
	for time.Since(began) < hour || full.IsZero() {
		if time.Since(began) > hour+patience {
			t.Fatalf("the spool never was full: %+v", pub.reports)
		}
		r := pub.waitFor("a report", func(pubReport) bool { return true })
		if r.Status.Capture.SpoolFull && full.IsZero() {
			full, fullKiB = time.Now(), residentKiB(t, pub.PID())
		}
		maxSpool = max(maxSpool, r.Status.Capture.SpoolBytes)
		<-time.After(reportEvery)
	}
	r := pub.waitFor("the alarm", func(r pubReport) bool { return r.Status.Capture.SpoolFull && r.Status.Error != "" && r.Status.Lag > 0 })
	grown := residentKiB(t, pub.PID()) - fullKiB
	outage := time.Since(began)
	t.Logf("away for %v, full after %v; spool at most %d bytes, memory grew by %d KiB since; %s", outage, full.Sub(began), maxSpool, grown, r.Status.Error)
	if maxSpool > hourSpool+slack {
		t.Errorf("the spool grew to %d bytes, the limit is %d", maxSpool, int64(hourSpool))
	}
	if grown > 100<<10 {
		t.Errorf("the publisher grew by %d KiB while its spool was full", grown)
	}
	srv.Restart()
	back := time.Now()
	sub.waitWithin(max(outage, patience), "lag under a second", func(s subReport) bool {
		p, err := pub.reports.Last()
		return err == nil && p.Status.Error == "" && p.Status.Lag < 1 && p.Status.Epoch != 0 && s.Status.Lag < 1 && s.Status.TXID > r.Status.Captured
	})
	took := time.Since(back)
	rep, err := writer.Finish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("back after %v; %s", took, rep.Report)
	if limit := max(outage/4, slowest); took > limit {
		t.Errorf("lag is back after %v, want %v", took, limit)
	}
	if rep.Report.Max > 10*time.Second {
		t.Errorf("the application waited %v", rep.Report.Max)
	}
	settleChildren(t, pub, sub)
	testenv.Finish(t, reader)
	testenv.Compare(t, f.primary, f.replica)
	expectFull(t, srv.JetStream(), appDB, 1)
}

// With the spool full, frames stay in the WAL, but not for ever: from a limit on
// the application restarts it, and what differs follows as a delta.
func TestWALWhileTheSpoolIsFull(t *testing.T) {
	t.Parallel()
	f := paths(t)
	srv := testenv.Node(t)
	_, _ = testenv.Bank(t, f.primary, sqlconn.WAL(), seed(t))
	p, _ := publish(t, srv.JetStream(), appDB, f.primary, func(c *publisher.Config) { c.SpoolLimit, c.SoftWALLimit = 256<<10, 256<<10 })
	s, _ := replicate(t, srv.JetStream(), appDB, f.replica)
	settle(t, p, s)
	srv.Stop()
	writer := testenv.App(t, app.Config{Path: f.primary, DB: sqlconn.WAL(), NoteBytes: 2000})
	testenv.Until(t, patience, "a full spool", func() error {
		if st := p.Status(); !st.Capture.SpoolFull {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	if _, err := writer.WaitFor(t.Context(), writer.Progress().Report.Commits+4000); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(f.primary + "-wal"); err != nil || fi.Size() > 16<<20 { // 4 MiB is what SQLite keeps by itself
		t.Errorf("WAL of %d bytes: %v", fi.Size(), err)
	}
	srv.Restart()
	if _, err := writer.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	equalAt(t, settle(t, p, s), f.primary, f.replica)
	expectFull(t, srv.JetStream(), appDB, 1)
}
