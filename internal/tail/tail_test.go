package tail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/superfly/ltx"
	"go.uber.org/goleak"

	"github.com/ltxstream/ltxstream/internal/feed"
	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/internal/stream/streamtest"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/restore"
	"github.com/ltxstream/ltxstream/testenv/history"
	"github.com/ltxstream/ltxstream/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const db = wire.DB("app")

// world is a history that is published.
type world struct {
	*streamtest.Chain
	h  *history.History
	js jetstream.JetStream
}

func newWorld(t *testing.T, seed uint64) *world {
	t.Helper()
	js := streamtest.Connect(t, streamtest.Server(t, nil))
	if _, err := stream.Ensure(t.Context(), js, stream.Config{}); err != nil {
		t.Fatal(err)
	}
	w := &world{Chain: streamtest.NewChain(db, seed), h: history.New(t, history.Config{Seed: seed, PageSize: 1024, MaxBlob: 3000}), js: js}
	w.Claim(t, js)
	return w
}

// publish adds transactions, published one by one in parts.
func (w *world) publish(t *testing.T, n int) {
	t.Helper()
	for range n {
		w.h.Grow(t, 1)
		w.send(t, w.h.File(w.h.Len()), false)
	}
}

func (w *world) publishFull(t *testing.T) {
	t.Helper()
	w.h.Grow(t, 1)
	w.send(t, w.h.Full(t), true)
}

func (w *world) send(t *testing.T, data []byte, full bool) {
	t.Helper()
	dec := ltx.NewDecoder(bytes.NewReader(data))
	if err := dec.Verify(); err != nil {
		t.Fatal(err)
	}
	meta := wire.MetaOf(dec.Header(), dec.Trailer(), int64(len(data)))
	meta.DB, meta.Writer, meta.Epoch, meta.Full = w.DB, w.Writer, w.Epoch, meta.Full || full
	w.Publish(t, w.js, streamtest.File{Meta: meta, Data: data}, 2000)
}

func (w *world) trim(t *testing.T, before uint64) {
	t.Helper()
	str, err := stream.Open(t.Context(), w.js, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := str.Trim(t.Context(), db, before); err != nil {
		t.Fatal(err)
	}
}

func (w *world) at(txid ltx.TXID) ltx.Pos { return w.h.State(txid).Pos }

func (w *world) fetch(t *testing.T, after ltx.Pos, enough func(wire.Meta) bool) (Fetched, error) {
	t.Helper()
	f, err := Fetch(t.Context(), Config{JS: w.js, DB: db, After: after, Dir: t.TempDir(), Enough: enough, Logger: slog.New(slog.DiscardHandler)})
	if str, errStream := w.js.Stream(t.Context(), wire.DefaultStream); errStream == nil {
		for name := range str.ConsumerNames(t.Context()).Name() {
			t.Errorf("consumer %s is left", name)
		}
	}
	return f, err
}

// has fails the test unless exactly the files of a range were fetched, each as it
// was published.
func (w *world) has(t *testing.T, f Fetched, lo, hi ltx.TXID) {
	t.Helper()
	want, bytesWant := lo, int64(0)
	for file, err := range f.Archive.Files(t.Context(), string(db), levels.Stream, 0) {
		if err != nil {
			t.Fatal(err)
		}
		if file.Min != want || file.Max != want || !file.Timestamp.Equal(w.h.State(want).Time) || file.Size != int64(len(w.h.File(want))) {
			t.Errorf("%+v, want TXID %s", file, want)
		}
		want, bytesWant = want+1, bytesWant+file.Size
	}
	if want != hi+1 || f.Files != int(hi-lo)+1 || f.Bytes != bytesWant || f.Last != w.at(hi) {
		t.Errorf("%+v up to %s, want %s", f, want-1, hi)
	}
}

func TestFetch(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.publish(t, 20)
	for _, after := range []ltx.TXID{0, 1, 12, 19} {
		f, err := w.fetch(t, w.at(after), nil)
		if err != nil {
			t.Fatal(err)
		}
		w.has(t, f, after+1, 20)
	}
	f, err := w.fetch(t, w.at(20), nil)
	if err != nil || f.Files != 0 || f.Last != w.at(20) {
		t.Errorf("at the end: %+v, %v", f, err)
	}
	f, err = w.fetch(t, w.at(5), func(next wire.Meta) bool { return next.Min > 9 })
	if err != nil {
		t.Fatal(err)
	}
	w.has(t, f, 6, 9)
	f, err = w.fetch(t, w.at(5), func(next wire.Meta) bool { return next.Timestamp.After(w.h.State(5).Time) })
	if err != nil || f.Files != int(w.h.At(w.h.State(5).Time).Pos.TXID-5) {
		t.Errorf("enough at once: %+v, %v", f, err)
	}
}

// TestWholeFromTheStream: nothing is archived, and the stream begins with a full
// file in the middle of the history: what is fetched restores by itself.
func TestWholeFromTheStream(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	w.publish(t, 5)
	w.publishFull(t) // TXID 6
	w.publish(t, 4)
	w.publishFull(t) // TXID 11, which continues the chain as well
	w.publish(t, 2)
	for _, trimmed := range []bool{false, true} {
		if trimmed {
			w.trim(t, w.Base-10)
			w.trim(t, w.Base)
		}
		f, err := w.fetch(t, ltx.Pos{}, nil)
		if err != nil || f.Last != w.at(13) {
			t.Fatalf("%+v, %v", f, err)
		}
		path := filepath.Join(t.TempDir(), "out.db")
		_, err = restore.Restore(t.Context(), restore.Config{Sources: []restore.Source{restore.Of(f.Archive, string(db))}, Path: path})
		if err := errors.Join(err, w.h.Check(path, 13)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestBehindLitestream: an archive that ends without a checksum is followed by the
// first full file, and not by the newest.
func TestBehindLitestream(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 7)
	w.h.Grow(t, 9)
	w.publishFull(t)
	w.publish(t, 2)
	w.publishFull(t)
	w.publish(t, 1)
	f, err := w.fetch(t, ltx.NewPos(9, 0), nil)
	if err != nil || f.Files != 5 || f.Last != w.at(14) {
		t.Fatalf("%+v, %v", f, err)
	}
	for _, txid := range []ltx.TXID{10, 11, 13, 14} {
		path := filepath.Join(t.TempDir(), "out.db")
		_, err := restore.Restore(t.Context(), restore.Config{Sources: []restore.Source{restore.Of(f.Archive, string(db))}, Target: restore.Target{TXID: txid}, Path: path})
		if err := errors.Join(err, w.h.Check(path, txid)); err != nil {
			t.Errorf("TXID %s: %v", txid, err)
		}
	}
}

// TestDoesNotContinue: what the stream lost, or of another history, is an error.
func TestDoesNotContinue(t *testing.T) {
	t.Parallel()
	gap := func(err error) bool { return errors.As(err, new(*feed.GapError)) }
	fork := func(err error) bool { return errors.As(err, new(*feed.ForkError)) }
	none := func(err error) bool { return errors.Is(err, feed.ErrNoBase) }
	w := newWorld(t, 3)
	w.publish(t, 10)
	other := func(txid ltx.TXID) ltx.Pos { return ltx.NewPos(txid, ltx.ChecksumFlag|7) }
	for _, txid := range []ltx.TXID{1, 5, 9, 10} {
		if f, err := w.fetch(t, other(txid), nil); !fork(err) {
			t.Errorf("another history at %s: %+v, %v", txid, f, err)
		}
	}
	w.trim(t, w.LastSeq-1)
	for name, tt := range map[string]struct {
		after ltx.Pos
		is    func(error) bool
	}{"trimmed": {w.at(3), gap}, "trimmed, no archive": {ltx.Pos{}, none}} {
		if f, err := w.fetch(t, tt.after, nil); !tt.is(err) {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
	}
	w.publishFull(t) // TXID 11: it does not continue what is archived up to 3
	if f, err := w.fetch(t, w.at(3), nil); !gap(err) {
		t.Errorf("a full file behind a hole: %+v, %v", f, err)
	}
	if f, err := w.fetch(t, w.at(10), nil); err != nil || f.Last != w.at(11) {
		t.Errorf("a full file that continues: %+v, %v", f, err)
	}
}

func TestNothingThere(t *testing.T) {
	t.Parallel()
	js := streamtest.Connect(t, streamtest.Server(t, nil))
	cfg := Config{JS: js, DB: db, Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)}
	if _, err := Fetch(t.Context(), cfg); !errors.Is(err, stream.ErrNoStream) {
		t.Errorf("%v, want ErrNoStream", err)
	}
	if _, err := stream.Ensure(t.Context(), js, stream.Config{}); err != nil {
		t.Fatal(err)
	}
	if f, err := Fetch(t.Context(), cfg); err != nil || f.Files != 0 {
		t.Errorf("an empty stream: %+v, %v", f, err)
	}
	after := ltx.NewPos(5, ltx.ChecksumFlag|1)
	cfg.After = after
	if f, err := Fetch(t.Context(), cfg); err != nil || f.Files != 0 || f.Last != after {
		t.Errorf("an empty stream: %+v, %v", f, err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(fmt.Errorf("stopped: %w", context.Canceled))
	if _, err := Fetch(ctx, cfg); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want context.Canceled", err)
	}
}

// TestEndsWithTheStream: what is published meanwhile is not waited for.
func TestEndsWithTheStream(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 4)
	w.publish(t, 10)
	begun := time.Now()
	f, err := w.fetch(t, w.at(2), func(next wire.Meta) bool {
		if next.Min == 5 {
			w.publish(t, 3)
		}
		return false
	})
	if err != nil {
		t.Fatal(err)
	}
	w.has(t, f, 3, 10)
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
}
