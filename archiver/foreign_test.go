package archiver

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/compactor"
	"github.com/ltxstream/ltxstream/internal/stream/streamtest"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/restore"
	"github.com/ltxstream/ltxstream/wire"
)

// litestream puts what Litestream would have left of the transactions up to 12,
// which the history has and the stream does not: its folder is the archive's root.
func (s *source) litestream(t *testing.T, dest *target) {
	t.Helper()
	s.h.Grow(t, 12)
	put := func(level levels.Level, lo, hi ltx.TXID) {
		var inputs []compactor.Input
		for txid := lo; txid <= hi; txid++ {
			inputs = append(inputs, compactor.Input{Open: func(context.Context) (io.ReadCloser, error) {
				return io.NopCloser(bytes.NewReader(s.h.File(txid))), nil
			}})
		}
		var buf bytes.Buffer
		m, err := compactor.Merge(t.Context(), &buf, inputs, compactor.MergeOptions{NoChecksums: true, Snapshot: level == levels.Snapshot})
		if err == nil {
			_, err = dest.archive().Put(t.Context(), levels.Root, levels.File{Level: level, Min: lo, Max: hi, Timestamp: m.Timestamp()}, &buf, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	put(levels.Snapshot, 1, 4)
	put(levels.First, 1, 5)
	put(levels.First, 6, 8)
	for txid := ltx.TXID(7); txid <= 12; txid++ {
		put(levels.Stream, txid, txid)
	}
}

// continued are the points at the root of an archive, each restored and compared.
func (s *source) continued(t *testing.T, dest *target) (points []ltx.TXID) {
	t.Helper()
	source := restore.Of(levels.New(dest.Store, levels.Decimal), levels.Root)
	catalog, err := restore.Read(t.Context(), source)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range catalog.Files {
		if f.Level == levels.Stream && f.Max <= 8 {
			continue // within what level 1 has as a whole
		}
		points = append(points, f.Max)
	}
	slices.Sort(points)
	points = slices.Compact(points)
	for _, p := range points {
		path := filepath.Join(t.TempDir(), "out.db")
		_, err := restore.Restore(t.Context(), restore.Config{Sources: []restore.Source{source}, Target: restore.Target{TXID: p}, Path: path})
		if err := errors.Join(err, s.h.Check(path, p)); err != nil {
			t.Errorf("point %s: %v", p, err)
		}
	}
	if n := len(catalog.Stretches()); n != 1 {
		t.Errorf("%d stretches, want one", n)
	}
	return points
}

// TestContinuesLitestream: behind what Litestream left, its newest files at level
// 0, the archive goes on with the first full file of the stream, though there is a
// newer one, and in the very folder; other databases and other destinations know
// nothing of it.
func TestContinuesLitestream(t *testing.T) {
	t.Parallel()
	js := streamtest.Connect(t, newServer(t))
	src, b := newSource(t, js, "app", 31), newSource(t, js, "b", 32)
	dest, other := newTarget(), newTarget()
	src.litestream(t, dest)
	b.publish(t, 40) // beyond what the folder of the other one has
	src.publishFull(t)
	src.publish(t, 3)
	src.publishFull(t)
	src.publish(t, 2) // up to 19
	cfg := quickly(t, js, dest, other)
	cfg.Destinations[0].DB = "app"
	cfg.AskFull = func(context.Context, wire.DB) error { t.Error("asked for a full file"); return nil }
	for range 3 {
		_, stop := start(t, cfg)
		src.publish(t, 4)
		reached(t, dest, levels.Root, src.published)
		reached(t, other, "app", src.published)
		reached(t, other, "b", 40)
		stop()
	}
	src.check(t, other, src.published)
	points := src.continued(t, dest)
	for _, want := range []ltx.TXID{4, 5, 8, 9, 12, 13, src.published} {
		if !slices.Contains(points, want) {
			t.Errorf("TXID %s is no point: %v", want, points)
		}
	}
	for info, err := range dest.List(t.Context(), "", "") {
		if err != nil || !strings.HasPrefix(info.Key, "ltx/") {
			t.Errorf("%s, %v", info.Key, err)
		}
	}
}

// TestForeignStreamIsRefused: a stream that counts from 1 is not what continues an
// archive of Litestream's. Nothing of it is written, nobody is asked for anything.
func TestForeignStreamIsRefused(t *testing.T) {
	t.Parallel()
	js := streamtest.Connect(t, newServer(t))
	src, stranger := newSource(t, js, "old", 33), newSource(t, js, "app", 34)
	dest := newTarget()
	src.litestream(t, dest)
	stranger.publish(t, 4)
	cfg := quickly(t, js, dest)
	cfg.Destinations[0].DB = "app"
	cfg.AskFull = func(context.Context, wire.DB) error { t.Error("asked for a full file"); return nil }
	a, _ := start(t, cfg)
	streamtest.Eventually(t, "the refusal", func() bool {
		s := a.Status()
		return len(s) == 1 && strings.Contains(s[0].Error, "--from-litestream") && a.Ready(0) != nil
	})
	if points := src.continued(t, dest); points[len(points)-1] != 12 { // the archive itself is kept in order
		t.Errorf("points %v, want the last one at 12 still", points)
	}
}

// TestStreamBeginsAnew: while the archiver runs, the stream is made anew by somebody
// who counts from 1. Full files are not asked for again and again that all lie before
// the archive's end; it says so, and goes on once the numbers are beyond.
func TestStreamBeginsAnew(t *testing.T) {
	t.Parallel()
	js := streamtest.Connect(t, newServer(t))
	old := newSource(t, js, "app", 7)
	dest := newTarget()
	cfg := quickly(t, js, dest)
	var asked atomic.Int64
	cfg.AskFull = func(context.Context, wire.DB) error { asked.Add(1); return nil }
	a, _ := start(t, cfg)
	old.publish(t, 10)
	reached(t, dest, "app", 10)
	before := asked.Load()
	if err := js.DeleteStream(t.Context(), wire.DefaultStream); err != nil {
		t.Fatal(err)
	}
	other := newSource(t, js, "app", 8)
	other.Writer = "another"
	other.publish(t, 5)
	streamtest.Eventually(t, "an error that says so", func() bool {
		s := a.Status()
		return len(s) == 1 && strings.Contains(s[0].Error, "another history")
	})
	if n := asked.Load() - before; n != 0 {
		t.Errorf("asked for %d full files", n)
	}
	other.publish(t, 8)
	other.publishFull(t)
	reached(t, dest, "app", 14)
	other.check(t, dest, 14)
}
