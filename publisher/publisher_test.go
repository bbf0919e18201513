package publisher

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/faults"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
	"github.com/ltxstream/ltxstream/testenv/workload"
	"github.com/ltxstream/ltxstream/wire"
)

func TestPublishAndSync(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := start(t, w.config())
	p.sync()
	w.transfer(50)
	pos := p.sync()
	if c := w.read(); len(c.metas) < 2 {
		t.Fatalf("%d files", len(c.metas))
	}
	c := w.check()
	if c.pos != pos || c.fulls != 1 || c.replays != 0 || len(c.claims) != 1 {
		t.Fatalf("sync returned %s, the chain: %s, %d full, %d replays, %d claims", pos, c.pos, c.fulls, c.replays, len(c.claims))
	}
	if s := p.Status(); s.Acked != pos.TXID || s.Checksum != pos.PostApplyChecksum || s.Error != "" || s.LagFiles != 0 || s.Files != uint64(len(c.metas)) || s.Epoch != 1 {
		t.Fatalf("status %+v", s)
	}
	p.mustStop()
	if _, err := p.Sync(t.Context()); !errors.Is(err, errStopped) {
		t.Fatalf("sync after the end: %v", err)
	}
	if err := p.Run(t.Context()); err == nil {
		t.Fatal("Run ran twice")
	}
}

func TestRandomWorkload(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config()
	cfg.SoftWALLimit = 256 << 10
	p := start(t, cfg)
	app := testenv.Workload(t, w.path, sqlconn.WAL(), workload.Config{Seed: 7}, 600)
	w.transfer(300)
	if err := app.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.sync()
	w.check()
	p.mustStop()
}

func TestOneFilePerTransaction(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config()
	cfg.PerTransaction = true
	p := start(t, cfg)
	p.sync()
	before := w.read().pos.TXID
	w.transfer(300)
	if pos := p.sync(); pos.TXID != before+300 {
		t.Fatalf("300 transactions went from %s to %s", before, pos.TXID)
	}
	w.check()
}

func TestGroupCommit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	proxy := testenv.Proxy(t, w.node.URL())
	cfg := w.config()
	cfg.JS = testenv.JetStream(t, testenv.Connect(t, "nats://"+proxy.Addr()))
	p := start(t, cfg)
	p.sync()
	proxy.Set(faults.Fault{Latency: 500 * time.Millisecond})
	before := w.read().pos.TXID
	w.transfer(300)
	proxy.Set(faults.Fault{}) // the rest is one file
	if pos := p.sync(); pos.TXID > before+100 {
		t.Fatalf("300 transactions over a slow link made %d files", pos.TXID-before)
	}
	w.check()
}

func TestFileOfManyParts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *testenv.Config) { c.MaxPayload = 256 << 10 })
	p := start(t, w.config())
	p.sync()
	for _, n := range []int{200 << 10, 3 << 20, 20 << 20} {
		w.blob(n)
		p.sync()
	}
	if c := w.check(); c.split != 2 || c.unfinished != 0 {
		t.Fatalf("%d files of several parts, want 2; %d unfinished", c.split, c.unfinished)
	}
}

func TestStopPublishesEverything(t *testing.T) {
	t.Parallel()
	for run := range 5 {
		w := newWorld(t)
		p := start(t, w.config())
		if run%2 == 0 {
			p.sync()
		}
		p.until("the database to be open", func(s Status) bool { return s.Writer != "" })
		w.transfer(40 * run)
		p.mustStop()
		w.check()
	}
}

func TestStopWhileNATSIsAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := start(t, w.config())
	p.sync()
	w.node.Stop()
	w.transfer(20)
	if err := p.stop(); !errors.Is(err, ErrUnacknowledged) || !strings.Contains(err.Error(), "spool") {
		t.Fatalf("stop: %v", err)
	}
	w.restart()
	w.transfer(20)
	p = start(t, w.config())
	p.sync()
	if c := w.check(); c.fulls != 1 {
		t.Fatalf("%d full files", c.fulls)
	}
}

func TestStopBeforeNATSWasEverThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config()
	w.node.Stop()
	p := start(t, cfg)
	p.until("the error to show", func(s Status) bool { return s.Error != "" })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := p.Sync(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "open stream") {
		t.Fatalf("sync: %v", err)
	}
	if err := p.stop(); !errors.Is(err, ErrUnacknowledged) {
		t.Fatalf("stop: %v", err)
	}
}

func TestLockedStateDirectory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := start(t, w.config())
	p.sync()
	q := start(t, w.config())
	_ = q.mustEnd(ErrLocked)
	w.transfer(5)
	p.sync()
	w.check()
}

func TestManyDatabasesShareANotifier(t *testing.T) {
	t.Parallel()
	node := testenv.Node(t)
	n, err := NewNotifier()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	js := node.JetStream()
	const count = 50
	worlds, pubs := make([]*world, count), make([]*running, count)
	for i := range worlds {
		w := newWorldOn(t, nil)
		w.db, w.js = wire.DB(fmt.Sprintf("app-%d", i)), js
		worlds[i] = w
		pubs[i] = start(t, Config{JS: js, DB: w.db, Path: w.path, Notifier: n})
	}
	for _, w := range worlds {
		w.transfer(5)
	}
	for i, w := range worlds {
		pubs[i].sync()
		w.check()
	}
	for _, p := range pubs {
		p.mustStop()
	}
}

func TestNewReportsAllFaults(t *testing.T) {
	t.Parallel()
	_, err := New(Config{DB: "a.b", Retain: -1})
	for _, want := range []string{"JS", "name", "Path", "limits"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Fatalf("New: %v, want it to speak of %s", err, want)
		}
	}
}

func TestMissingDatabase(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config()
	cfg.Path += "x"
	_ = start(t, cfg).mustEnd(os.ErrNotExist)
}
