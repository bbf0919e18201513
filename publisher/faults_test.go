package publisher

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/faults"
	"github.com/ltxstream/ltxstream/wire"
)

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
