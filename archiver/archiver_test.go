package archiver

import (
	"bytes"
	"context"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/compactor"
	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/internal/stream/streamtest"
	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/wire"
)

// TestArchive: two destinations, restarts in between; every point of both is
// what the database was.
func TestArchive(t *testing.T) {
	t.Parallel()
	js := streamtest.Connect(t, newServer(t))
	src := newSource(t, js, "app", 1)
	one, two := newTarget(), newTarget()
	cfg := quickly(t, js, one, two)
	cfg.Metrics = NewMetrics(prometheus.NewRegistry())
	rng := rand.New(rand.NewPCG(1, 1))
	for range 4 {
		a, stop := start(t, cfg)
		for range 5 {
			src.publish(t, 1+rng.IntN(5))
			if rng.IntN(2) == 0 {
				reached(t, one, "app", src.published)
			}
		}
		taken(t, a, 2, src.published)
		stop() // flushes
		reached(t, one, "app", src.published)
		reached(t, two, "app", src.published)
	}
	for _, s := range []*target{one, two} {
		all := points(t, s, "app")
		if len(all) < 8 {
			t.Fatalf("only %d points", len(all))
		}
		for _, txid := range all {
			src.check(t, s, txid)
		}
	}
}

// TestDiscover: databases that come later are archived too; named ones alone
// when there are names.
func TestDiscover(t *testing.T) {
	t.Parallel()
	js := streamtest.Connect(t, newServer(t))
	a := newSource(t, js, "a", 2)
	a.publish(t, 3)
	all, named := newTarget(), newTarget()
	start(t, quickly(t, js, all))
	only := quickly(t, js, named)
	only.DBs, only.Destinations[0].Name = []wire.DB{"b"}, "named"
	start(t, only)
	reached(t, all, "a", 3)
	b := newSource(t, js, "b", 3)
	b.publish(t, 3)
	reached(t, all, "b", 3)
	reached(t, named, "b", 3)
	if got := points(t, named, "a"); len(got) > 0 {
		t.Errorf("archived a database that was not named: %v", got)
	}
	b.check(t, named, 3)
}

// TestStandby: of two archivers one writes; when it falls silent the other one
// takes over, and nothing is missing.
func TestStandby(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	src := newSource(t, streamtest.Connect(t, srv), "app", 4)
	dest := newTarget()
	js1, js2 := streamtest.Connect(t, srv), streamtest.Connect(t, srv)
	cfg1, cfg2 := quickly(t, js1, dest), quickly(t, js2, dest)
	cfg1.LeaseTTL, cfg2.LeaseTTL = time.Second, time.Second
	first, stopFirst := start(t, cfg1)
	src.publish(t, 5)
	reached(t, dest, "app", 5)
	second, stopSecond := start(t, cfg2)
	in := func(a *Archiver, state State) bool {
		s := a.Status()
		return len(s) == 1 && s[0].State == state && (state != StateStandby || strings.Contains(s[0].Error, "writes it"))
	}
	streamtest.Eventually(t, "standing by", func() bool {
		return in(first, StateArchiving) && in(second, StateStandby) || in(second, StateArchiving) && in(first, StateStandby)
	})
	if in(first, StateStandby) { // a slow machine: it lost the lease already
		first, second, stopSecond, js1 = second, first, stopFirst, js2
	}
	js1.Conn().Close() // the first one is cut off
	src.publish(t, 5)
	reached(t, dest, "app", 10)
	streamtest.Eventually(t, "taken over", func() bool { return in(second, StateArchiving) })
	streamtest.Eventually(t, "the first one gives up", func() bool { return len(first.Status()) == 0 || first.Status()[0].State == StateStandby })
	src.check(t, dest, 10)
	stopSecond() // lets go at once
	cfg3 := quickly(t, streamtest.Connect(t, srv), dest)
	cfg3.LeaseTTL = time.Second
	third, _ := start(t, cfg3)
	begin := time.Now()
	streamtest.Eventually(t, "taken over", func() bool { s := third.Status(); return len(s) == 1 && s[0].State == StateArchiving })
	t.Logf("taken over %v after a clean end", time.Since(begin))
}

// TestTwoWriters: without a lease two archivers write one archive, each in its
// own rhythm: whatever they leave restores.
func TestTwoWriters(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	src := newSource(t, streamtest.Connect(t, srv), "app", 5)
	dest := newTarget()
	one := quickly(t, streamtest.Connect(t, srv), dest)
	two := quickly(t, streamtest.Connect(t, srv), dest)
	one.NoLease, two.NoLease, two.FlushInterval = true, true, 35*time.Millisecond
	_, stopOne := start(t, one)
	_, stopTwo := start(t, two)
	for range 30 {
		src.publish(t, 2)
		time.Sleep(10 * time.Millisecond) // so that they flush at different places
	}
	reached(t, dest, "app", 60)
	stopOne()
	stopTwo()
	for _, txid := range points(t, dest, "app") {
		src.check(t, dest, txid)
	}
	// the next one puts what they left in order
	_, stop := start(t, quickly(t, streamtest.Connect(t, srv), dest))
	src.publish(t, 3)
	reached(t, dest, "app", 63)
	streamtest.Eventually(t, "level 2 goes on", func() bool {
		return newestOf(t, dest, 2) > 55
	})
	stop()
	src.check(t, dest, 63)
}

func newestOf(t *testing.T, s *target, level levels.Level) (last ltx.TXID) {
	t.Helper()
	for f, err := range levels.New(s.Store, levels.Decimal).Files(t.Context(), "app", level, 0) {
		if err != nil {
			t.Fatal(err)
		}
		last = max(last, f.Max)
	}
	return last
}

// TestGap: the stream lost what was not archived. The archive asks for a whole
// file and goes on behind it; what it has from before stays restorable.
func TestGap(t *testing.T) {
	t.Parallel()
	js := streamtest.Connect(t, newServer(t))
	src := newSource(t, js, "app", 6)
	dest := newTarget()
	cfg := quickly(t, js, dest)
	var asked atomic.Int64
	cfg.AskFull = func(_ context.Context, db wire.DB) error { asked.Add(1); return nil }
	_, stop := start(t, cfg)
	src.publish(t, 10)
	reached(t, dest, "app", 10)
	stop()
	src.publish(t, 10)
	str, err := stream.Open(t.Context(), js, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := str.Trim(t.Context(), "app", src.LastSeq-3); err != nil {
		t.Fatal(err)
	}
	a, _ := start(t, cfg)
	streamtest.Eventually(t, "asked for a full file", func() bool { return asked.Load() > 0 })
	if err := a.Ready(0); err == nil {
		t.Error("ready though the stream does not continue the archive")
	}
	src.publishFull(t) // TXID 21
	reached(t, dest, "app", 21)
	src.publish(t, 5)
	reached(t, dest, "app", 26)
	for _, txid := range []ltx.TXID{10, 21, 26} {
		src.check(t, dest, txid)
	}
	streamtest.Eventually(t, "ready", func() bool { return a.Ready(0) == nil })
}

// TestFork: the stream began anew with another history under the same TXIDs. The
// archive never mixes the two.
func TestFork(t *testing.T) {
	t.Parallel()
	js := streamtest.Connect(t, newServer(t))
	old := newSource(t, js, "app", 7)
	dest := newTarget()
	cfg := quickly(t, js, dest)
	_, stop := start(t, cfg)
	old.publish(t, 10)
	reached(t, dest, "app", 10)
	stop()
	if err := js.DeleteStream(t.Context(), wire.DefaultStream); err != nil {
		t.Fatal(err)
	}
	other := newSource(t, js, "app", 8)
	other.publish(t, 8)
	a, _ := start(t, cfg)
	streamtest.Eventually(t, "an error", func() bool { return a.Ready(0) != nil && len(a.Status()) == 1 && a.Status()[0].Error != "" })
	other.publish(t, 5)
	other.publishFull(t) // TXID 14, behind the end of the old one
	reached(t, dest, "app", 14)
	other.publish(t, 2)
	reached(t, dest, "app", 16)
	old.check(t, dest, 10)
	other.check(t, dest, 14)
	other.check(t, dest, 16)
}

// TestOneDestinationDown: the other one goes on, nothing is trimmed that the
// lost one lacks, and it catches up.
func TestOneDestinationDown(t *testing.T) {
	t.Parallel()
	js := streamtest.Connect(t, newServer(t))
	src := newSource(t, js, "app", 9)
	good, bad := newTarget(), newTarget()
	cfg := quickly(t, js, good, bad)
	cfg.TrimAfter = 200 * time.Millisecond
	a, _ := start(t, cfg)
	src.publish(t, 5)
	reached(t, good, "app", 5)
	reached(t, bad, "app", 5)
	bad.down.Store(true)
	src.publish(t, 10)
	reached(t, good, "app", 15)
	streamtest.Eventually(t, "not ready", func() bool { err := a.Ready(0); return err != nil && strings.Contains(err.Error(), "app to d2") })
	time.Sleep(500 * time.Millisecond) // time to trim what must not be trimmed
	str, err := stream.Open(t.Context(), js, "")
	if err != nil {
		t.Fatal(err)
	}
	m, err := str.FirstData(t.Context(), "app")
	if err != nil || m.Meta.Min > 6 {
		t.Fatalf("the stream begins at %s, the lost destination has 5: %v", m.Meta.Min, err)
	}
	bad.down.Store(false)
	reached(t, bad, "app", 15)
	streamtest.Eventually(t, "trimmed", func() bool {
		m, err := str.FirstData(t.Context(), "app")
		return err == nil && m.Meta.Min == 15
	})
	src.publish(t, 1) // the newest file was kept: the chain goes on
	reached(t, bad, "app", 16)
	reached(t, good, "app", 16)
	src.check(t, bad, 16)
	src.check(t, good, 16)
}

// TestSteadyState: no listing once it runs, and not a single request while
// nothing happens.
func TestSteadyState(t *testing.T) {
	t.Parallel()
	js := streamtest.Connect(t, newServer(t))
	src := newSource(t, js, "app", 10)
	dest := newTarget()
	cfg := quickly(t, js, dest)
	cfg.Policy = compactor.Policy{Window: time.Minute}
	start(t, cfg)
	src.publish(t, 3)
	reached(t, dest, "app", 3)
	lists := dest.lists.Load()
	for range 5 {
		src.publish(t, 3)
		reached(t, dest, "app", src.published)
	}
	if n := dest.lists.Load() - lists; n > 0 {
		t.Errorf("%d listings while archiving", n)
	}
	streamtest.Eventually(t, "merged", func() bool {
		for _, level := range []levels.Level{levels.First, 2, 3, levels.Snapshot} {
			if newestOf(t, dest, level) < src.published {
				return false
			}
		}
		return true
	})
	calls := int64(-1)
	streamtest.Eventually(t, "quiet", func() bool {
		time.Sleep(700 * time.Millisecond) // time to delete what was merged
		was := calls
		calls = dest.calls()
		return calls == was
	})
	time.Sleep(time.Second)
	if n := dest.calls() - calls; n > 0 {
		t.Errorf("%d requests for an idle database", n)
	}
}

// TestNewBaseAfterDamage: a file of level 1 that is lost for good stands in the
// way of every later point; the archive says so, asks for a whole file, and goes
// on behind it.
func TestNewBaseAfterDamage(t *testing.T) {
	t.Parallel()
	js := streamtest.Connect(t, newServer(t))
	src := newSource(t, js, "app", 11)
	dest := newTarget()
	cfg := quickly(t, js, dest)
	cfg.Schedule = daily
	_, stop := start(t, cfg)
	src.publish(t, 3)
	reached(t, dest, "app", 3)
	src.publish(t, 3)
	reached(t, dest, "app", 6)
	src.publish(t, 3)
	reached(t, dest, "app", 9)
	stop()
	spoil(t, dest, "app/ltx/1/", "0006.ltx")
	a := alarmed(t, cfg)
	src.publishFull(t)
	reached(t, dest, "app", 10)
	streamtest.Eventually(t, "no alarm", func() bool { s := a.Status(); return len(s) == 1 && s[0].Alarm == "" })
	src.publish(t, 2)
	reached(t, dest, "app", 12)
	src.check(t, dest, 12)
	src.check(t, dest, 3)
}

// alarmed starts an archiver that merges often, and waits until it finds the damage
// and asks for a whole file.
func alarmed(t *testing.T, cfg Config) *Archiver {
	t.Helper()
	cfg.Schedule = compactor.Schedule{Windows: []time.Duration{100 * time.Millisecond}, Snapshot: 100 * time.Millisecond}
	var asked atomic.Int64
	cfg.AskFull = func(context.Context, wire.DB) error { asked.Add(1); return nil }
	a, _ := start(t, cfg)
	streamtest.Eventually(t, "alarm", func() bool { s := a.Status(); return len(s) == 1 && s[0].Alarm != "" })
	streamtest.Eventually(t, "asked", func() bool { return asked.Load() > 0 })
	return a
}

// spoil flips a bit of a stored file.
func spoil(t *testing.T, dest *target, folder, name string) {
	t.Helper()
	for info, err := range dest.Store.List(t.Context(), folder, "") {
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(info.Key, name) {
			continue
		}
		b, err := objstore.ReadAll(t.Context(), dest.Store, info.Key)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)-20] ^= 1
		if _, err := dest.Store.Put(t.Context(), info.Key, bytes.NewReader(b), objstore.PutOptions{Timestamp: info.Timestamp}); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("no file %s in %s", name, folder)
}

// TestNewBaseAfterDamagedBase: the first snapshot is of a full file, which no other
// level has: without it nothing restores, and that is said and mended.
func TestNewBaseAfterDamagedBase(t *testing.T) {
	t.Parallel()
	js := streamtest.Connect(t, newServer(t))
	src := newSource(t, js, "app", 13)
	dest := newTarget()
	cfg := quickly(t, js, dest)
	cfg.Schedule = daily
	_, stop := start(t, cfg)
	src.publish(t, 1)
	reached(t, dest, "app", 1)
	src.publish(t, 8)
	reached(t, dest, "app", 9)
	stop()
	spoil(t, dest, "app/ltx/9/", "0001-0000000000000001.ltx")
	a := alarmed(t, cfg)
	src.publishFull(t)
	streamtest.Eventually(t, "a base", func() bool { return newestOf(t, dest, levels.Snapshot) == 10 })
	streamtest.Eventually(t, "no alarm", func() bool { s := a.Status(); return len(s) == 1 && s[0].Alarm == "" })
	src.publish(t, 2)
	reached(t, dest, "app", 12)
	src.check(t, dest, 10)
	src.check(t, dest, 12)
}

// TestManyFiles: more files between two flushes than a merge holds open at once.
func TestManyFiles(t *testing.T) {
	t.Parallel()
	js := streamtest.Connect(t, newServer(t))
	src := newSource(t, js, "app", 12)
	src.publish(t, foldAt*2+100)
	dest := newTarget()
	cfg := quickly(t, js, dest)
	cfg.FlushInterval = 2 * time.Second
	start(t, cfg)
	reached(t, dest, "app", src.published)
	src.check(t, dest, src.published)
}

func TestConfig(t *testing.T) {
	t.Parallel()
	js := streamtest.Connect(t, newServer(t))
	good := quickly(t, js, newTarget())
	for name, change := range map[string]func(*Config){
		"no JetStream":   func(c *Config) { c.JS = nil },
		"no destination": func(c *Config) { c.Destinations = nil },
		"no stage":       func(c *Config) { c.StageDir = "" },
		"twice":          func(c *Config) { c.Destinations = append(c.Destinations, c.Destinations[0]) },
		"bad name":       func(c *Config) { c.Destinations = []Destination{{Name: "a.b", Archive: newTarget().archive()}} },
		"bad schedule":   func(c *Config) { c.Schedule.Windows = []time.Duration{0} },
		"bad merges":     func(c *Config) { c.Parallelism = -1 },
		"bad policy":     func(c *Config) { c.Policy.Grace = -time.Hour },
		"bad db":         func(c *Config) { c.DBs = []wire.DB{"x.y"} },
	} {
		cfg := good
		change(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
}
