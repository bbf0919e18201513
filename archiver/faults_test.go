package archiver

import (
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/compactor"
	"github.com/ltxstream/ltxstream/internal/stream/streamtest"
	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/objstore/mem"
)

// flaky is a store of which every fifth call fails for a while, and which loses
// the answer to the first Put of each key after it was done.
type flaky struct {
	objstore.Store
	calls, refused, lost atomic.Int64
	told                 sync.Map // keys whose Put was answered, or not
}

var errUnavailable = objstore.Transient(errors.New("503 service unavailable"))

func (s *flaky) refuse() error {
	if s.calls.Add(1)%5 == 0 {
		s.refused.Add(1)
		return errUnavailable
	}
	return nil
}

func (s *flaky) Put(ctx context.Context, key string, r io.Reader, o objstore.PutOptions) (objstore.Info, error) {
	if err := s.refuse(); err != nil {
		return objstore.Info{}, err
	}
	info, err := s.Store.Put(ctx, key, r, o)
	if _, told := s.told.LoadOrStore(key, true); !told && err == nil {
		s.lost.Add(1)
		return objstore.Info{}, objstore.Transient(errors.New("connection reset while waiting for the answer"))
	}
	return info, err
}

func (s *flaky) Get(ctx context.Context, key string, offset, size int64) (io.ReadCloser, error) {
	if err := s.refuse(); err != nil {
		return nil, err
	}
	r, err := s.Store.Get(ctx, key, offset, size)
	if err == nil && s.calls.Load()%7 == 0 {
		r = &cut{ReadCloser: r, left: 1000}
	}
	return r, err
}

// cut is a body that breaks off.
type cut struct {
	io.ReadCloser
	left int
}

func (c *cut) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, objstore.Transient(io.ErrUnexpectedEOF)
	}
	n, err := c.ReadCloser.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

func (s *flaky) Stat(ctx context.Context, key string) (objstore.Info, error) {
	if err := s.refuse(); err != nil {
		return objstore.Info{}, err
	}
	return s.Store.Stat(ctx, key)
}

func (s *flaky) List(ctx context.Context, prefix, after string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		if err := s.refuse(); err != nil {
			yield(objstore.Info{}, err)
			return
		}
		s.Store.List(ctx, prefix, after)(yield)
	}
}

func (s *flaky) Delete(ctx context.Context, keys ...string) error {
	if err := s.refuse(); err != nil {
		return err
	}
	return s.Store.Delete(ctx, keys...)
}

// TestFlakyStorage: small files, which are tried again by the call, and streamed
// ones, which are not; restarts in between. Nothing is lost, nothing is there
// twice, each point is what the database was.
func TestFlakyStorage(t *testing.T) {
	t.Parallel()
	js := streamtest.Connect(t, newServer(t))
	src := newSource(t, js, "app", 20)
	src.part = 500_000
	bad := &flaky{Store: mem.New()}
	good := &target{Store: bad.Store} // the same objects, to look at
	store := objstore.Retry(bad, objstore.RetryConfig{FirstPause: time.Millisecond, MaxPause: 10 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
	cfg := quickly(t, js)
	cfg.Schedule.Snapshot = 2 * time.Second
	cfg.Destinations = []Destination{{Name: "d1", Archive: levels.New(store, levels.Decimal)}}
	for round := range 2 {
		a, stop := start(t, cfg)
		for range 8 {
			src.publish(t, 3)
			reached(t, good, "app", src.published)
		}
		if round == 1 {
			src.h.Exec(t, "CREATE TABLE large(x)")
			src.send(t, src.h.File(src.h.Len()), false)
			src.h.Exec(t, "INSERT INTO large VALUES (randomblob(4500000))") // too large to be merged in memory
			src.send(t, src.h.File(src.h.Len()), false)
			reached(t, good, "app", src.published)
		}
		src.publish(t, 2)
		reached(t, good, "app", src.published)
		streamtest.Eventually(t, "known as archived", func() bool {
			s := a.Status()
			return len(s) == 1 && s[0].Archived == src.published && s[0].Alarm == ""
		})
		stop()
		t.Logf("round %d: %d calls, %d refused, %d answers lost", round, bad.calls.Load(), bad.refused.Load(), bad.lost.Load())
	}
	if bad.lost.Load() < 10 || bad.refused.Load() < 10 {
		t.Fatalf("%d answers lost, %d calls refused: too few to mean anything", bad.lost.Load(), bad.refused.Load())
	}
	whole(t, good, src.published)
	for i, txid := range points(t, good, "app") {
		if i%3 == 0 || txid == src.published {
			src.check(t, good, txid)
		}
	}
}

// whole fails the test unless level 1 goes from the first snapshot to the end,
// without a hole and without an overlap, and every file of the archive is whole.
func whole(t *testing.T, s *target, end ltx.TXID) {
	t.Helper()
	a := levels.New(s.Store, levels.Decimal)
	for level := levels.First; level <= levels.Snapshot; level++ {
		var last levels.File
		for f, err := range a.Files(t.Context(), "app", level, 0) {
			if err == nil {
				_, err = compactor.Inspect(t.Context(), a, "app", f)
			}
			if err != nil {
				t.Fatal(err)
			}
			if level != levels.Snapshot && last.Max > 0 && f.Min != last.Max+1 {
				t.Errorf("%s follows %s", f, last)
			}
			last = f
		}
		if level == levels.First && last.Max != end {
			t.Errorf("level 1 ends at %s, want %s", last.Max, end)
		}
	}
}
