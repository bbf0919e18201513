package archiver

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/compactor"
	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/internal/stream/streamtest"
	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/objstore/mem"
	"github.com/ltxstream/ltxstream/restore"
	"github.com/ltxstream/ltxstream/testenv/history"
	"github.com/ltxstream/ltxstream/wire"
)

// source is a database whose history is published.
type source struct {
	*streamtest.Chain
	h         *history.History
	js        jetstream.JetStream
	published ltx.TXID
	part      int // bytes of a message, default 2000
}

func newServer(t *testing.T) *server.Server { return streamtest.Server(t, nil) }

func newSource(t *testing.T, js jetstream.JetStream, db wire.DB, seed uint64) *source {
	t.Helper()
	if _, err := stream.Ensure(t.Context(), js, stream.Config{}); err != nil {
		t.Fatal(err)
	}
	s := &source{
		Chain: streamtest.NewChain(db, seed), js: js,
		h: history.New(t, history.Config{Seed: seed, PageSize: 1024, MaxBlob: 3000, Start: time.Now().Add(-time.Hour).Truncate(time.Millisecond), Pace: 20 * time.Millisecond}),
	}
	s.Claim(t, js)
	return s
}

// publish grows the history by n transactions, published one by one.
func (s *source) publish(t *testing.T, n int) {
	t.Helper()
	for range n {
		s.h.Grow(t, 1)
		s.send(t, s.h.File(s.h.Len()), false)
	}
}

// publishFull publishes the next transaction as a file of all pages.
func (s *source) publishFull(t *testing.T) {
	t.Helper()
	s.h.Grow(t, 1)
	s.send(t, s.h.Full(t), true)
}

func (s *source) send(t *testing.T, data []byte, full bool) {
	t.Helper()
	dec := ltx.NewDecoder(bytes.NewReader(data))
	if err := dec.Verify(); err != nil {
		t.Fatal(err)
	}
	meta := wire.MetaOf(dec.Header(), dec.Trailer(), int64(len(data)))
	meta.DB, meta.Writer, meta.Epoch = s.DB, s.Writer, s.Epoch
	meta.Full = meta.Full || full
	s.Publish(t, s.js, streamtest.File{Meta: meta, Data: data}, cmp.Or(s.part, 2000))
	s.published = meta.Max
}

// target is a destination that can be made to fail and counts its calls.
type target struct {
	objstore.Store
	down                         atomic.Bool
	puts, gets, stats, lists, no atomic.Int64
}

var errDown = objstore.Transient(errors.New("storage is down"))

func newTarget() *target { return &target{Store: mem.New()} }

func (s *target) archive() *levels.Archive { return levels.New(s, levels.Decimal) }

func (s *target) calls() int64 {
	return s.puts.Load() + s.gets.Load() + s.stats.Load() + s.lists.Load() + s.no.Load()
}

func (s *target) Put(ctx context.Context, key string, r io.Reader, o objstore.PutOptions) (objstore.Info, error) {
	s.puts.Add(1)
	if s.down.Load() {
		return objstore.Info{}, errDown
	}
	return s.Store.Put(ctx, key, r, o)
}

func (s *target) Get(ctx context.Context, key string, offset, size int64) (io.ReadCloser, error) {
	s.gets.Add(1)
	if s.down.Load() {
		return nil, errDown
	}
	return s.Store.Get(ctx, key, offset, size)
}

func (s *target) Stat(ctx context.Context, key string) (objstore.Info, error) {
	s.stats.Add(1)
	return s.Store.Stat(ctx, key)
}

func (s *target) List(ctx context.Context, prefix, after string) iter.Seq2[objstore.Info, error] {
	s.lists.Add(1)
	return s.Store.List(ctx, prefix, after)
}

func (s *target) Delete(ctx context.Context, keys ...string) error {
	s.no.Add(1)
	return s.Store.Delete(ctx, keys...)
}

// daily is a schedule by which a test ends before anything is merged.
var daily = compactor.Schedule{Windows: []time.Duration{24 * time.Hour}, Snapshot: 24 * time.Hour}

// quickly are settings under which everything happens within a second or two.
func quickly(t *testing.T, js jetstream.JetStream, targets ...*target) Config {
	t.Helper()
	cfg := Config{
		JS: js, StageDir: t.TempDir(), FlushInterval: 60 * time.Millisecond, Discover: 100 * time.Millisecond,
		LeaseTTL: time.Minute,
		Schedule: compactor.Schedule{Windows: []time.Duration{200 * time.Millisecond, time.Second}, Snapshot: 500 * time.Millisecond},
		Logger:   slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	for i, s := range targets {
		cfg.Destinations = append(cfg.Destinations, Destination{Name: "d" + string(rune('1'+i)), Archive: s.archive()})
	}
	return cfg
}

// start runs an archiver until the returned function is called, or the test
// ends.
func start(t *testing.T, cfg Config) (a *Archiver, stop func()) {
	t.Helper()
	a, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("archiver: %v", err)
		}
	}
	t.Cleanup(stop)
	return a, stop
}

// taken waits until each of n lanes has a TXID, staged or archived.
func taken(t *testing.T, a *Archiver, n int, txid ltx.TXID) {
	t.Helper()
	streamtest.Eventually(t, "taken "+txid.String(), func() bool {
		all := a.Status()
		return len(all) == n && !slices.ContainsFunc(all, func(s Status) bool { return max(s.Staged, s.Archived) < txid })
	})
}

// reached waits until an archive has a TXID.
func reached(t *testing.T, s *target, db wire.DB, txid ltx.TXID) {
	t.Helper()
	streamtest.Eventually(t, "archived "+txid.String(), func() bool {
		for _, level := range []levels.Level{levels.First, levels.Snapshot} {
			for f, err := range levels.New(s.Store, levels.Decimal).Files(t.Context(), string(db), level, 0) {
				if err != nil {
					t.Fatal(err)
				}
				if f.Max >= txid {
					return true
				}
			}
		}
		return false
	})
}

// check restores a point and holds it against the history.
func (s *source) check(t *testing.T, from *target, txid ltx.TXID) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "out.db")
	_, err := restore.Restore(t.Context(), restore.Config{
		Sources: []restore.Source{restore.Of(levels.New(from.Store, levels.Decimal), string(s.DB))}, Target: restore.Target{TXID: txid}, Path: path,
	})
	if err := errors.Join(err, s.h.Check(path, txid)); err != nil {
		t.Fatal(err)
	}
}

// points are the ends of all files of level 1 and of all snapshots.
func points(t *testing.T, s *target, db wire.DB) (all []ltx.TXID) {
	t.Helper()
	for _, level := range []levels.Level{levels.First, levels.Snapshot} {
		for f, err := range levels.New(s.Store, levels.Decimal).Files(t.Context(), string(db), level, 0) {
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, f.Max)
		}
	}
	return all
}
