package publisher

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/faults"
	"github.com/ltxstream/ltxstream/wire"
)

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
