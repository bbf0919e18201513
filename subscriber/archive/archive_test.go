package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/superfly/ltx"
	"go.uber.org/goleak"

	"github.com/ltxstream/ltxstream/compactor"
	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/objstore/mem"
	"github.com/ltxstream/ltxstream/subscriber"
	"github.com/ltxstream/ltxstream/testenv/history"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a history and an archive of it.
type world struct {
	h     *history.History
	store *mem.Store
	a     *levels.Archive
	b     *Bootstrapper
}

func newWorld(t *testing.T, cfg history.Config, n int) *world {
	t.Helper()
	h := history.New(t, cfg)
	h.Grow(t, n)
	return worldOf(t, h)
}

func worldOf(t *testing.T, h *history.History) *world {
	t.Helper()
	w := &world{h: h, store: mem.New()}
	w.a = levels.New(w.store, levels.Decimal)
	w.b = &Bootstrapper{Archive: w.a, Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)}
	return w
}

// put archives files given as "9:1-40".
func (w *world) put(t *testing.T, specs ...string) {
	t.Helper()
	for _, spec := range specs {
		f := parse(spec)
		var inputs []compactor.Input
		for txid := f.Min; txid <= f.Max; txid++ {
			inputs = append(inputs, compactor.Input{Name: fmt.Sprint(txid), Open: func(context.Context) (io.ReadCloser, error) {
				return io.NopCloser(bytes.NewReader(w.h.File(txid))), nil
			}})
		}
		if _, _, err := compactor.Store(t.Context(), compactor.StoreConfig{Archive: w.a, DB: "app"}, f.Level, inputs, 0); err != nil {
			t.Fatal(err)
		}
	}
}

func parse(spec string) (f levels.File) {
	if _, err := fmt.Sscanf(spec, "%d:%d-%d", &f.Level, &f.Min, &f.Max); err != nil {
		panic(spec)
	}
	return f
}

// spoil changes a byte of a file.
func (w *world) spoil(t *testing.T, spec string, at int) {
	t.Helper()
	key := w.a.Key("app", parse(spec))
	b, err := objstore.ReadAll(t.Context(), w.store, key)
	if err != nil {
		t.Fatal(err)
	}
	b = bytes.Clone(b)
	b[at] ^= 0x10
	if _, err := w.store.Put(t.Context(), key, bytes.NewReader(b), objstore.PutOptions{Timestamp: time.UnixMilli(1)}); err != nil {
		t.Fatal(err)
	}
}

func (w *world) remove(t *testing.T, spec string) {
	t.Helper()
	if err := w.a.Delete(t.Context(), "app", []levels.File{parse(spec)}); err != nil {
		t.Fatal(err)
	}
}

// base asks for a base and reads it whole: it must be what Full says, and lead
// from after to the state that it names.
func (w *world) base(t *testing.T, after ltx.Pos) (hdr ltx.Header, full bool, err error) {
	t.Helper()
	base, err := w.b.Base(t.Context(), "app", after)
	if left, _ := os.ReadDir(w.b.Dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if err != nil {
		return hdr, false, err
	}
	defer base.Close()
	dec := ltx.NewDecoder(base.File)
	if err := dec.Verify(); err != nil {
		t.Fatal(err)
	}
	hdr = dec.Header()
	want := w.h.State(hdr.MaxTXID)
	if got := dec.Trailer().PostApplyChecksum; got != want.Pos.PostApplyChecksum {
		t.Fatalf("it leads to %s %s, want %s", hdr.MaxTXID, got, want.Pos)
	}
	switch {
	case base.Full && hdr.MinTXID != 1:
		t.Errorf("a whole database from TXID %s on", hdr.MinTXID)
	case !base.Full && (hdr.MinTXID > after.TXID+1 || hdr.MinTXID == 1):
		t.Errorf("changes from TXID %s on, behind %s", hdr.MinTXID, after)
	}
	if hdr.MaxTXID <= after.TXID {
		t.Errorf("a base that ends at %s for a replica at %s", hdr.MaxTXID, after)
	}
	return hdr, base.Full, nil
}

func (w *world) at(txid ltx.TXID) ltx.Pos { return w.h.State(txid).Pos }

func TestBase(t *testing.T) {
	t.Parallel()
	w := newWorld(t, history.Config{Seed: 1}, 60)
	w.h.Exec(t, "CREATE TABLE big(x)")
	w.h.Exec(t, "INSERT INTO big VALUES (randomblob(2000000))") // so that the whole is never smaller than the changes
	w.h.Grow(t, 18)                                             // up to 80
	w.put(t, "9:1-62", "1:63-63", "1:64-70", "1:71-75", "1:76-80", "2:63-70")
	for name, tt := range map[string]struct {
		after ltx.Pos
		from  ltx.TXID // of the file; 1: the whole
	}{
		"new replica":          {ltx.Pos{}, 1},
		"far behind":           {w.at(5), 1},
		"at the snapshot":      {w.at(62), 63},
		"at the end of a file": {w.at(70), 71},
		"inside a file":        {w.at(72), 71},
		"one behind":           {w.at(79), 76},
		"another history":      {ltx.NewPos(70, ltx.ChecksumFlag|12345), 1},
	} {
		hdr, full, err := w.base(t, tt.after)
		if err != nil || hdr.MinTXID != tt.from || hdr.MaxTXID != 80 || full != (tt.from == 1) {
			t.Errorf("%s: %s-%s, full %t, %v; want from %s", name, hdr.MinTXID, hdr.MaxTXID, full, err, tt.from)
		}
	}
	for name, after := range map[string]ltx.Pos{"at the end": w.at(80), "ahead": ltx.NewPos(99, ltx.ChecksumFlag|1)} {
		if _, _, err := w.base(t, after); !errors.Is(err, subscriber.ErrNoBase) {
			t.Errorf("%s: %v, want ErrNoBase", name, err)
		}
	}
}

// TestWholeWhenSmaller: long histories of changes are not read where the
// database is small.
func TestWholeWhenSmaller(t *testing.T) {
	t.Parallel()
	w := newWorld(t, history.Config{Seed: 2}, 60)
	for txid := 1; txid <= 60; txid++ {
		w.put(t, fmt.Sprintf("1:%d-%d", txid, txid))
	}
	w.put(t, "9:1-59")
	if hdr, full, err := w.base(t, w.at(2)); err != nil || !full {
		t.Errorf("%s-%s, full %t, %v", hdr.MinTXID, hdr.MaxTXID, full, err)
	}
}

func TestNoBase(t *testing.T) {
	t.Parallel()
	w := newWorld(t, history.Config{Seed: 3}, 20)
	if _, _, err := w.base(t, ltx.Pos{}); !errors.Is(err, subscriber.ErrNoBase) {
		t.Errorf("an empty archive: %v", err)
	}
	w.put(t, "1:11-12", "1:13-14")
	if _, _, err := w.base(t, ltx.Pos{}); !errors.Is(err, subscriber.ErrNoBase) {
		t.Errorf("no whole database: %v", err)
	}
	if _, _, err := w.base(t, w.at(5)); !errors.Is(err, subscriber.ErrNoBase) {
		t.Errorf("no whole database, and behind: %v", err)
	}
	if hdr, full, err := w.base(t, w.at(10)); err != nil || full || hdr.MinTXID != 11 || hdr.MaxTXID != 14 {
		t.Errorf("changes need no whole database: %s-%s, full %t, %v", hdr.MinTXID, hdr.MaxTXID, full, err)
	}
}

// TestHole: behind a hole of the archive a replica never goes back, and goes on
// where changes lead on from it.
func TestHole(t *testing.T) {
	t.Parallel()
	w := newWorld(t, history.Config{Seed: 4}, 20)
	w.put(t, "9:1-8", "1:9-10", "1:15-20")
	if hdr, full, err := w.base(t, w.at(5)); err != nil || !full || hdr.MaxTXID != 10 {
		t.Errorf("before the hole: %s-%s, full %t, %v", hdr.MinTXID, hdr.MaxTXID, full, err)
	}
	if hdr, _, err := w.base(t, w.at(12)); !errors.Is(err, subscriber.ErrNoBase) {
		t.Errorf("inside the hole: up to %s, %v; want ErrNoBase", hdr.MaxTXID, err)
	}
	if hdr, full, err := w.base(t, w.at(14)); err != nil || full || hdr.MinTXID != 15 || hdr.MaxTXID != 20 {
		t.Errorf("behind the hole: %s-%s, full %t, %v", hdr.MinTXID, hdr.MaxTXID, full, err)
	}
}

// TestDamage: files that are damaged or gone are passed over, wherever they are,
// as long as any way is left.
func TestDamage(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(5, 5))
	h := newWorld(t, history.Config{Seed: 5, MaxBlob: 3000}, 12).h
	for round := range 30 {
		w := worldOf(t, h)
		w.put(t, "9:1-4", "9:1-8", "1:5-5", "1:6-6", "1:7-8", "1:9-9", "1:10-12", "2:5-9")
		bad := []string{"9:1-8", "2:5-9", "1:6-6", "1:9-9"}[round%4]
		size := int64(0)
		for info, err := range w.store.List(t.Context(), w.a.Key("app", parse(bad)), "") {
			if err != nil {
				t.Fatal(err)
			}
			size = info.Size
		}
		if round%5 == 4 {
			w.spoil(t, bad, rng.IntN(ltx.HeaderSize))
		} else {
			w.spoil(t, bad, rng.IntN(int(size)))
		}
		for _, after := range []ltx.TXID{0, 4, 5, 8, 9} {
			if hdr, _, err := w.base(t, w.at(after)); err != nil || hdr.MaxTXID != 12 {
				t.Fatalf("round %d, %s damaged, behind %d: up to %s, %v", round, bad, after, hdr.MaxTXID, err)
			}
		}
	}
}

// TestAllDamaged: the end that can be reached is lower then, or there is none.
func TestAllDamaged(t *testing.T) {
	t.Parallel()
	w := newWorld(t, history.Config{Seed: 6}, 8)
	w.put(t, "9:1-4", "1:5-6", "1:7-8")
	w.spoil(t, "1:7-8", ltx.HeaderSize+12)
	if hdr, _, err := w.base(t, ltx.Pos{}); err != nil || hdr.MaxTXID != 6 {
		t.Errorf("up to %s, %v", hdr.MaxTXID, err)
	}
	w.spoil(t, "9:1-4", ltx.HeaderSize+12)
	if _, _, err := w.base(t, ltx.Pos{}); !errors.Is(err, subscriber.ErrNoBase) {
		t.Errorf("%v, want ErrNoBase", err)
	}
}

// retention is a store in which files go between listing and reading.
type retention struct {
	objstore.Store
	gets int
	do   func()
}

func (s *retention) Get(ctx context.Context, key string, offset, size int64) (io.ReadCloser, error) {
	if s.gets++; s.gets == 2 {
		s.do()
	}
	return s.Store.Get(ctx, key, offset, size)
}

func TestFilesVanish(t *testing.T) {
	t.Parallel()
	w := newWorld(t, history.Config{Seed: 7}, 12)
	w.put(t, "9:1-4", "1:5-6", "1:7-8", "1:9-12")
	w.b.Archive = levels.New(&retention{Store: w.store, do: func() {
		w.put(t, "9:1-8")
		w.remove(t, "9:1-4")
		w.remove(t, "1:5-6")
		w.remove(t, "1:7-8")
	}}, levels.Decimal)
	if hdr, full, err := w.base(t, ltx.Pos{}); err != nil || !full || hdr.MaxTXID != 12 {
		t.Errorf("up to %s, full %t, %v", hdr.MaxTXID, full, err)
	}
}

// TestForeignFiles: an archive of Litestream's, without checksums of the database,
// gives no changes (nothing says whether they belong to the replica).
func TestForeignFiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t, history.Config{Seed: 8, NoChecksums: true}, 12)
	w.put(t, "9:1-4", "1:5-6", "1:7-12")
	base, err := w.b.Base(t.Context(), "app", w.at(6))
	if err != nil {
		if errors.Is(err, subscriber.ErrNoBase) {
			return
		}
		t.Fatal(err)
	}
	defer base.Close()
	if !base.Full {
		t.Error("changes without a checksum")
	}
}

func TestEnded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, history.Config{Seed: 9}, 4)
	w.put(t, "9:1-4")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.b.Base(ctx, "app", ltx.Pos{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want context.Canceled", err)
	}
}
