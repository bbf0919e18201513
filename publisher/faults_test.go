package publisher

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/child"
	"github.com/ltxstream/ltxstream/testenv/faults"
	"github.com/ltxstream/ltxstream/testenv/pace"
	"github.com/ltxstream/ltxstream/wire"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// startChild runs a publisher that can be killed.
func (w *world) startChild(perTransaction bool) *child.Process {
	w.t.Helper()
	return w.startSpec(publisherSpec{PerTransaction: perTransaction})
}

func (w *world) startSpec(spec publisherSpec) *child.Process {
	w.t.Helper()
	spec.URL, spec.Path, spec.DB, spec.SoftWALLimit = w.node.URL(), w.path, w.db, 128<<10
	p, err := child.Start("publisher", spec, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(p.Kill)
	return p
}

// TestKilledAtEachStep kills the publisher at every step that lasts: before and
// after a claim, a part and a file are stored, and before and after the spool knows.
func TestKilledAtEachStep(t *testing.T) {
	t.Parallel()
	for _, label := range []string{"claim", "claimed", "part", "part stored", "published", "acknowledged"} {
		t.Run(label, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(c *testenv.Config) { c.MaxPayload = 64 << 10 })
			for seed := range uint64(killSeeds) {
				rnd := rand.New(rand.NewPCG(seed, 6))
				nth := 1 + rnd.IntN(4)
				if strings.HasPrefix(label, "claim") {
					nth = 1 // a run claims once
				}
				p := w.startSpec(publisherSpec{Crash: label, Nth: nth})
				testenv.Until(t, patience, "the kill", func() error {
					w.transfer(1 + rnd.IntN(3))
					if rnd.IntN(10) == 0 {
						w.exec("CREATE TABLE IF NOT EXISTS big (id INTEGER PRIMARY KEY, v)")
						w.exec("INSERT OR REPLACE INTO big VALUES (1, randomblob(?))", rnd.IntN(300<<10))
					}
					if p.Err() == nil {
						return errors.New("it runs")
					}
					return nil
				})
				w.transfer(rnd.IntN(10))
			}
			last := start(t, w.config())
			last.sync()
			c := w.check()
			if c.fulls != 1 || c.replays != 0 || c.junk+c.stale != 0 || c.skipped != 0 {
				t.Fatalf("%d full files, %d replays, %d junk, %d stale", c.fulls, c.replays, c.junk, c.stale)
			}
			if want := killSeeds; label != "claim" && len(c.claims) < want {
				t.Errorf("%d claims after %d kills", len(c.claims), want)
			}
		})
	}
}

// TestKilledAtAnyMoment kills the publisher again and again while the
// application goes on: no gap, no fork, no second full file.
func TestKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	for seed := range uint64(2) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			killAtAnyMoment(t, seed)
		})
	}
}

func killAtAnyMoment(t *testing.T, seed uint64) {
	w := newWorld(t)
	rnd := rand.New(rand.NewPCG(seed, 5))
	p := w.startChild(seed%2 == 0)
	for range 6 {
		for last, more := w.lastSeq(), rnd.Uint64N(60); w.lastSeq() < last+more && p.Err() == nil; {
			w.transfer(1)
			if rnd.IntN(100) == 0 {
				w.exec("CREATE TABLE IF NOT EXISTS big (id INTEGER PRIMARY KEY, v)")
				w.exec("INSERT OR REPLACE INTO big VALUES (1, randomblob(?))", rnd.IntN(3<<20))
			}
			pace.Sleep(500 * time.Microsecond)
		}
		p.Kill()
		w.transfer(rnd.IntN(3) * 10)
		p = w.startChild(seed%2 == 0)
	}
	p.Kill()
	last := start(t, w.config())
	last.sync()
	c := w.check()
	if c.fulls != 1 || c.replays != 0 || c.junk+c.stale != 0 || c.skipped != 0 {
		t.Fatalf("%d full files, %d replays, %d junk, %d stale", c.fulls, c.replays, c.junk, c.stale)
	}
	t.Logf("%d files in %d messages, %d claims, %d unfinished", len(c.metas), c.messages, len(c.claims), c.unfinished)
}

func (w *world) lastSeq() uint64 {
	w.t.Helper()
	w.connected()
	s, err := w.js.Stream(w.t.Context(), wire.DefaultStream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return 0
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return s.CachedInfo().State.LastSeq
}

func TestNATSAwayWhileTheAppGoesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config()
	cfg.SoftWALLimit = 512 << 10
	p := start(t, cfg)
	p.sync()
	w.node.Stop()
	w.transfer(3000)
	p.until("the outage to be captured", func(s Status) bool { return s.LagFiles > 0 && s.Lag > 0 && s.Error != "" })
	if s := p.Status(); s.Capture.WALBytes > 16<<20 {
		t.Fatalf("wal grew to %d bytes", s.Capture.WALBytes)
	}
	w.restart()
	w.transfer(100)
	p.sync()
	if c := w.check(); c.fulls != 1 || c.replays != 0 {
		t.Fatalf("%d full files, %d replays", c.fulls, c.replays)
	}
	p.until("the alarm to end", func(s Status) bool { return s.Error == "" && s.LagFiles == 0 })
}

// TestAlarmEndsWithoutATransaction: an idle publisher says so when NATS is back.
func TestAlarmEndsWithoutATransaction(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config()
	w.node.Stop()
	p := start(t, cfg)
	p.until("an error", func(s Status) bool { return s.Error != "" })
	w.restart()
	p.sync()
	w.node.Stop()
	p.until("an error", func(s Status) bool { return s.Error != "" && s.LagFiles == 0 })
	w.restart()
	p.until("the alarm to end", func(s Status) bool { return s.Error == "" })
}

// TestLostAcks cuts the connection again and again, before or within an answer.
func TestLostAcks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	proxy := testenv.Proxy(t, w.node.URL())
	cfg := w.config()
	cfg.PerTransaction = true
	cfg.JS = testenv.JetStream(t, testenv.Connect(t, "nats://"+proxy.Addr(), nats.ReconnectWait(5*time.Millisecond)))
	p := start(t, cfg)
	p.sync()
	rnd := rand.New(rand.NewPCG(3, 3))
	for range 30 {
		proxy.CutAfter(faults.Down, rnd.Int64N(800))
		w.transfer(10)
		p.sync()
	}
	if c := w.check(); c.fulls != 1 || c.replays != 0 || c.junk != 0 {
		t.Fatalf("%d full files, %d replays, %d junk", c.fulls, c.replays, c.junk)
	}
	t.Logf("%d lost acks within sessions, %d errors", p.Status().LostAcks, p.Status().Errors)
}

// TestLateAnswer holds answers back for longer than the publisher waits, on a
// connection that stays.
func TestLateAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	proxy := testenv.Proxy(t, w.node.URL())
	cfg := w.config()
	cfg.JS = testenv.JetStream(t, testenv.Connect(t, "nats://"+proxy.Addr()))
	p := start(t, cfg, func(p *Publisher) { p.times.ack = 400 * time.Millisecond })
	p.sync()
	proxy.Set(faults.Fault{Latency: 250 * time.Millisecond}) // there and back
	w.transfer(1)
	p.until("the lost answer to be found", func(s Status) bool { return s.LostAcks > 0 })
	proxy.Set(faults.Fault{})
	p.sync()
	if c := w.check(); c.fulls != 1 || c.replays != 0 || len(c.claims) != 1 || p.Status().Errors != 0 {
		t.Fatalf("%d full files, %d replays, %d claims; status %+v", c.fulls, c.replays, len(c.claims), p.Status())
	}
}

// TestServerRestartsWithinAFile: a file of many parts is finished over
// connections that each live for some parts only.
func TestServerRestartsWithinAFile(t *testing.T) {
	t.Parallel()
	for _, grows := range []int32{0, 8} { // bytes: other parts, and as many
		t.Run(fmt.Sprint(grows), func(t *testing.T) { t.Parallel(); restartWithinAFile(t, grows) })
	}
}

func restartWithinAFile(t *testing.T, grows int32) {
	w := newWorld(t, func(c *testenv.Config) { c.MaxPayload = 64 << 10 })
	p := start(t, w.config())
	p.sync()
	for range 4 {
		before := w.lastSeq()
		w.blob(8 << 20)
		testenv.Until(t, patience, "some parts", func() error {
			if n := w.lastSeq() - before; n < 20 {
				return fmt.Errorf("%d messages", n)
			}
			return nil
		})
		testenv.Until(t, patience, "the server to be back", func() error {
			return w.node.Server.RestartWith(t.Context(), func(c *testenv.Config) { c.MaxPayload += grows })
		})
		p.sync()
	}
	if c := w.check(); c.split != 4 || c.replays != 0 || c.fulls != 1 {
		t.Fatalf("%d files of several parts, %d replays, %d full files", c.split, c.replays, c.fulls)
	}
}

// TestCutWithinAFile: a file that takes longer than any connection lives gets
// through nevertheless.
func TestCutWithinAFile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *testenv.Config) { c.MaxPayload = 64 << 10 })
	proxy := testenv.Proxy(t, w.node.URL())
	cfg := w.config()
	cfg.JS = testenv.JetStream(t, testenv.Connect(t, "nats://"+proxy.Addr(), nats.ReconnectWait(5*time.Millisecond)))
	p := start(t, cfg)
	p.sync()
	proxy.CutAfter(faults.Up, 1<<20)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		cut := uint64(0)
		for nc := cfg.JS.Conn(); ctx.Err() == nil; sleep(ctx, time.Millisecond) {
			if n := nc.Stats().Reconnects; n > cut {
				proxy.CutAfter(faults.Up, 1<<20)
				cut = n
			}
		}
	})
	w.blob(6 << 20)
	p.sync()
	cancel()
	c := w.check()
	if c.split != 1 || c.replays != 0 || c.fulls != 1 {
		t.Fatalf("%d files of several parts, %d replays, %d full files", c.split, c.replays, c.fulls)
	}
	t.Logf("%d messages, %d reconnects, %d unfinished, %d claims", c.messages, cfg.JS.Conn().Stats().Reconnects, c.unfinished, len(c.claims))
}

// lose makes the server forget what was stored between keep and now.
func (w *world) lose(within func()) {
	w.t.Helper()
	dir := w.node.Server.Config().Dir
	saved := w.t.TempDir()
	w.node.Stop()
	copyDir(w.t, dir, saved)
	w.restart()
	within()
	w.node.Stop()
	if err := os.RemoveAll(dir); err != nil {
		w.t.Fatal(err)
	}
	copyDir(w.t, saved, dir)
	w.restart()
}

func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if err := os.MkdirAll(to, 0o755); err != nil {
		t.Fatal(err)
	}
	names, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range names {
		if e.IsDir() {
			copyDir(t, filepath.Join(from, e.Name()), filepath.Join(to, e.Name()))
			continue
		}
		copyFile(t, filepath.Join(from, e.Name()), filepath.Join(to, e.Name()))
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestServerLostAcknowledgedMessages(t *testing.T) {
	t.Parallel()
	for _, up := range []bool{true, false} {
		t.Run(fmt.Sprintf("publisher up %v", up), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			p := start(t, w.config())
			p.sync()
			w.lose(func() {
				w.transfer(100)
				p.sync()
				if !up {
					p.mustStop()
				}
			})
			if !up {
				p = start(t, w.config())
			}
			w.transfer(1)
			p.sync()
			if c := w.check(); c.fulls != 1 || c.replays != 0 {
				t.Fatalf("%d full files, %d replays", c.fulls, c.replays)
			}
		})
	}
}

// TestServerLostMoreThanTheSpoolKeeps: a full file spans the hole.
func TestServerLostMoreThanTheSpoolKeeps(t *testing.T) {
	t.Parallel()
	w, _ := lostMoreThanTheSpoolKeeps(t)
	p := start(t, w.config())
	p.sync()
	if c := w.check(); c.fulls != 2 || c.replays != 0 {
		t.Fatalf("%d full files, %d replays", c.fulls, c.replays)
	}
	w.transfer(3)
	p.sync()
	w.check()
}

// forget removes all but the newest n files from the spool, which must be small
// ones: records of 16 bytes (magic, flags, size) and the LTX file, in segments.
func (w *world) forget(n int) {
	w.t.Helper()
	names := w.spoolFiles()
	var records [][]byte
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err == nil {
			err = os.Remove(name)
		}
		if err != nil || !strings.HasSuffix(name, ".seg") {
			w.t.Fatal(name, err)
		}
		for len(b) > 0 {
			size := 16 + binary.BigEndian.Uint64(b[8:])
			records, b = append(records, b[:size]), b[size:]
		}
	}
	kept := records[len(records)-n:]
	txid := binary.BigEndian.Uint64(kept[0][16+16:])
	name := filepath.Join(filepath.Dir(names[0]), fmt.Sprintf("%016x.seg", txid))
	if err := os.WriteFile(name, slices.Concat(kept...), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// spoolFiles returns the files of the spool, oldest first.
func (w *world) spoolFiles() []string {
	w.t.Helper()
	names, err := filepath.Glob(filepath.Join(StateDir(w.path), "spool", "*"))
	if err != nil {
		w.t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

// TestStreamComesBackEmpty: purged, deleted, recreated; while the publisher is
// up and while it is down; with and without a full file in the spool.
func TestStreamComesBackEmpty(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"purged", "deleted", "recreated"} {
		for _, up := range []bool{true, false} {
			for _, forgot := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, publisher up %v, spool begins later %v", how, up, forgot), func(t *testing.T) {
					t.Parallel()
					emptyStream(t, how, up, forgot)
				})
			}
		}
	}
}

func emptyStream(t *testing.T, how string, up, forgot bool) {
	w := newWorld(t)
	cfg := w.config()
	cfg.PerTransaction = true
	p := start(t, cfg)
	p.sync()
	w.transfer(20)
	before := p.sync()
	if !up || forgot {
		p.mustStop()
	}
	if forgot {
		w.forget(1)
	}
	if up && forgot {
		p = start(t, cfg)
		p.until("the claim", func(s Status) bool { return s.Epoch == 2 })
	}
	w.empty(how)
	if !up {
		p = start(t, cfg)
	}
	w.transfer(5)
	pos := p.sync()
	c := w.check()
	first := c.metas[0]
	if !first.Full || c.replays != 0 || c.fulls != 1 || pos.TXID <= before.TXID {
		t.Fatalf("first file %+v, %d full files, %d replays, %s → %s", first, c.fulls, c.replays, before, pos)
	}
	if again := first.Max == 1; again == forgot {
		t.Fatalf("chain begins again at %s", first.Max)
	}
}

func (w *world) empty(how string) {
	w.t.Helper()
	ctx := w.t.Context()
	s, err := w.js.Stream(ctx, wire.DefaultStream)
	if err == nil && how == "purged" {
		err = s.Purge(ctx)
	} else if err == nil {
		err = w.js.DeleteStream(ctx, wire.DefaultStream)
	}
	if err == nil && how == "recreated" { // at once with the publisher, maybe
		_, err = stream.Ensure(ctx, w.js, stream.Config{})
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// TestStopRightAfterTheStreamWasDeleted: positions that were given up
// acknowledge nothing.
func TestStopRightAfterTheStreamWasDeleted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := start(t, w.config())
	p.sync()
	w.transfer(10)
	p.sync()
	p.mustStop()
	w.forget(1)
	proxy := testenv.Proxy(t, w.node.URL())
	cfg := w.config()
	cfg.JS = testenv.JetStream(t, testenv.Connect(t, "nats://"+proxy.Addr()))
	p = start(t, cfg)
	p.until("the claim", func(s Status) bool { return s.Epoch == 2 })
	proxy.Set(faults.Fault{BlackHole: true})
	w.empty("deleted")
	w.transfer(1)
	p.cancel()
	proxy.Set(faults.Fault{})
	p.mustStop()
	w.check()
}

func TestFullStream(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if _, err := w.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: wire.DefaultStream, Subjects: []string{wire.StreamSubjects},
		Discard: jetstream.DiscardNew, MaxBytes: 200 << 10}); err != nil {
		t.Fatal(err)
	}
	p := start(t, w.config())
	p.sync()
	for p.Status().Error == "" {
		w.transfer(1)
		if w.spooled() > 2<<20 {
			t.Fatalf("no alarm; status %+v", p.Status())
		}
	}
	if s := p.Status(); !strings.Contains(s.Error, "maximum bytes") || s.LagFiles == 0 {
		t.Fatalf("status %+v", s)
	}
	w.transfer(50)
	str, err := w.js.Stream(t.Context(), wire.DefaultStream)
	if err != nil {
		t.Fatal(err)
	}
	p.until("the alarm to end", func(s Status) bool { // what waits may be more than the stream holds at once
		if err := str.Purge(t.Context(), jetstream.WithPurgeKeep(1)); err != nil {
			t.Fatal(err)
		}
		return s.Error == "" && s.LagFiles == 0
	})
	p.sync()
	if n := strings.Count(p.log.String(), "publishing waits"); n > 20 {
		t.Fatalf("the alarm was logged %d times", n)
	}
}

func (w *world) spooled() (n int64) {
	for _, name := range w.spoolFiles() {
		if fi, err := os.Stat(name); err == nil {
			n += fi.Size()
		}
	}
	return n
}

func TestLossyStreamIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if _, err := w.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: wire.DefaultStream, Subjects: []string{wire.StreamSubjects}, MaxMsgs: 10}); err != nil {
		t.Fatal(err)
	}
	err := start(t, w.config()).end()
	if _, ok := errors.AsType[*stream.LossyError](err); !ok {
		t.Fatalf("Run: %v", err)
	}
	cfg := w.config()
	cfg.AcceptLossy = true
	p := start(t, cfg)
	p.sync()
	w.check()
}

func TestPermissionDenied(t *testing.T) {
	t.Parallel()
	api := []string{"$JS.API.STREAM.INFO.LTX", "$JS.API.STREAM.CREATE.LTX", "$JS.API.STREAM.MSG.GET.LTX"}
	for name, allowed := range map[string][]string{"publish": api, "create": api[:1], "info": {"ltx.>"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorldOn(t, nil)
			node := testenv.Node(t, testenv.Users(testenv.User{Name: "p", Password: "p", Publish: allowed}))
			nc := testenv.Connect(t, node.URL(), nats.UserInfo("p", "p"), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
			err := start(t, Config{JS: testenv.JetStream(t, nc), DB: w.db, Path: w.path}).mustEnd(stream.ErrPermission)
			t.Log(err)
		})
	}
}

func TestNoJetStream(t *testing.T) {
	t.Parallel()
	w := newWorldOn(t, testenv.Node(t, testenv.NoJetStream))
	p := start(t, w.config())
	p.until("the error to show", func(s Status) bool { return strings.Contains(s.Error, "no JetStream") })
	if err := p.stop(); !errors.Is(err, ErrUnacknowledged) {
		t.Fatalf("stop: %v", err)
	}
}

func TestRetain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config()
	cfg.Retain = time.Second
	p := start(t, cfg)
	for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline); {
		w.transfer(1)
		p.sync()
	}
	c := w.check() // fails unless there is a full file to begin with
	if c.fulls < 1 || c.fulls > 4 || c.metas[0].Max == 1 {
		t.Fatalf("%d full files, the first is %s, %d files are dropped", c.fulls, c.metas[0].Max, c.skipped)
	}
	n := p.Status().Capture.Comparisons
	w.node.Stop() // no more full files while they cannot be published
	p.until("the outage", func(s Status) bool { w.transfer(1); return s.Error != "" })
	at := time.Now()
	p.until("three periods", func(s Status) bool { return time.Since(at) > 1500*time.Millisecond })
	if m := p.Status().Capture.Comparisons; m > n+1 {
		t.Fatalf("%d full files were captured in an outage", m-n)
	}
	w.restart()
	p.sync()
	w.check()
}

// TestRetainWhileNobodyWrites: an idle publisher refreshes its base.
func TestRetainWhileNobodyWrites(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config()
	cfg.Retain = time.Second
	p := start(t, cfg)
	w.transfer(1)
	n := p.sync().TXID
	p.until("two more full files", func(s Status) bool { return s.Acked >= n+2 })
	if c := w.check(); c.fulls < 1 {
		t.Fatalf("%d full files", c.fulls)
	}
}

// TestLossWhileNobodyWrites: an idle publisher finds out that the stream lost
// what it had acknowledged.
func TestLossWhileNobodyWrites(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := start(t, w.config(), func(p *Publisher) { p.times.look = 50 * time.Millisecond })
	w.transfer(5)
	p.sync()
	w.empty("purged")
	p.until("the database to be published again", func(s Status) bool { return s.Epoch == 2 && s.Acked != 0 && s.Files > 1 })
	w.check()
}

func TestClusterLosesItsLeader(t *testing.T) {
	t.Parallel()
	cluster := testenv.ClusterProcesses(t)
	w := newWorldOn(t, nil)
	w.js = testenv.JetStream(t, testenv.Connect(t, cluster.URL()))
	cfg := Config{JS: testenv.JetStream(t, testenv.Connect(t, cluster.URL())), DB: w.db, Path: w.path, Replicas: 3}
	p := start(t, cfg)
	p.sync()
	w.transfer(200)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := cluster.KillLeader(ctx, wire.DefaultStream); err != nil {
		t.Fatal(err)
	}
	w.transfer(200)
	p.sync()
	if c := w.check(); c.fulls != 1 || c.replays != 0 {
		t.Fatalf("%d full files, %d replays", c.fulls, c.replays)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
