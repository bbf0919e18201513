package restore

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/objstore/objstoretest"
	"github.com/ltxstream/ltxstream/testenv/history"
)

// spoil changes a stored object.
func (w *world) spoil(t *testing.T, f levels.File, change func([]byte) []byte) {
	t.Helper()
	key := w.a.Key("app", f)
	b, err := objstore.ReadAll(t.Context(), w.store, key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Put(t.Context(), key, bytes.NewReader(change(bytes.Clone(b))), objstore.PutOptions{Timestamp: time.Now()}); err != nil {
		t.Fatal(err)
	}
}

// TestDamageIsPassedOver: wherever the newest snapshot is damaged, an older one
// and a longer chain lead to the same state; where nothing does, it is an error
// and there is no output.
func TestDamageIsPassedOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t, history.Config{Seed: 4, PageSize: 1024, MaxBlob: 2000}, 20)
	for txid := ltx.TXID(1); txid <= 20; txid++ {
		w.put(t, levels.First, txid, txid)
	}
	w.put(t, levels.Snapshot, 1, 5)
	rng := rand.New(rand.NewPCG(4, 4))
	snapshot := levels.File{Level: levels.Snapshot, Min: 1, Max: 15}
	for round := range 60 {
		if err := w.a.Delete(t.Context(), "app", []levels.File{snapshot}); err != nil {
			t.Fatal(err)
		}
		w.put(t, levels.Snapshot, 1, 15)
		w.spoil(t, snapshot, func(b []byte) []byte {
			switch round {
			case 0:
				return b[:len(b)-1]
			case 1:
				return append(b, 0)
			case 2:
				return nil
			case 3:
				return []byte("something else altogether")
			}
			b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
			return b
		})
		path, _, err := w.restore(t, Target{TXID: 18})
		if err := errors.Join(err, w.h.Check(path, 18)); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
	// now the only way
	last := levels.File{Level: levels.First, Min: 18, Max: 18}
	w.spoil(t, last, func(b []byte) []byte { b[len(b)/2] ^= 0x40; b[ltx.HeaderSize+12] ^= 0xff; return b })
	path, _, err := w.restore(t, Target{TXID: 18})
	damage, ok := errors.AsType[*DamageError](err)
	if !ok || damage.Key != w.a.Key("app", last) {
		t.Fatalf("%v, want a DamageError about %s", err, w.a.Key("app", last))
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestDamageThatTheStoreFinds: the same where the store itself says that a file is
// damaged.
func TestDamageThatTheStoreFinds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, history.Config{Seed: 4, PageSize: 1024, MaxBlob: 2000}, 20)
	rot := &objstoretest.Rot{Store: w.store}
	w.a = levels.New(rot, levels.Decimal)
	for txid := ltx.TXID(1); txid <= 20; txid++ {
		w.put(t, levels.First, txid, txid)
	}
	w.put(t, levels.Snapshot, 1, 5)
	w.put(t, levels.Snapshot, 1, 15)
	snapshot := w.a.Key("app", levels.File{Level: levels.Snapshot, Min: 1, Max: 15})
	info, err := w.store.Stat(t.Context(), snapshot)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(5, 5))
	for range 20 {
		at := rng.Int64N(info.Size)
		rot.Spoil(snapshot, at)
		path, _, err := w.restore(t, Target{TXID: 18})
		if err := errors.Join(err, w.h.Check(path, 18)); err != nil {
			t.Fatalf("byte %d: %v", at, err)
		}
	}
	last := w.a.Key("app", levels.File{Level: levels.First, Min: 18, Max: 18})
	rot.Spoil(last, 50)
	_, _, err = w.restore(t, Target{TXID: 18})
	if damage, ok := errors.AsType[*DamageError](err); !ok || damage.Key != last {
		t.Fatalf("%v, want a DamageError about %s", err, last)
	}
}

// TestTimeOfDamagedFile: a file whose header is damaged does not tell when it
// was. Another that ends with the same transaction does; without one it is an
// error, never an older state.
func TestTimeOfDamagedFile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, history.Config{Seed: 8}, 20)
	for txid := ltx.TXID(1); txid <= 20; txid++ {
		w.put(t, levels.First, txid, txid)
	}
	w.put(t, 2, 1, 5)
	w.put(t, 2, 6, 10)
	broken := func(level levels.Level, lo, hi ltx.TXID) string {
		f := levels.File{Level: level, Min: lo, Max: hi}
		w.spoil(t, f, func(b []byte) []byte { b[0] ^= 0xff; return b })
		return w.a.Key("app", f)
	}
	broken(levels.First, 10, 10)
	for _, txid := range []ltx.TXID{9, 10, 11} {
		when := w.h.State(txid).Time
		path, _, err := w.restore(t, Target{Time: when})
		if err := errors.Join(err, w.h.Check(path, w.h.At(when).Pos.TXID)); err != nil {
			t.Fatalf("at TXID %s: %v", txid, err)
		}
	}
	alone := broken(levels.First, 15, 15)
	_, _, err := w.restore(t, Target{Time: w.h.State(15).Time})
	if damage, ok := errors.AsType[*levels.DamageError](err); !ok || damage.Key != alone {
		t.Fatalf("%v, want a DamageError about %s", err, alone)
	}
	broken(2, 6, 10) // both that end with 10
	_, _, err = w.restore(t, Target{Time: w.h.State(10).Time})
	if _, ok := errors.AsType[*levels.DamageError](err); !ok {
		t.Fatalf("%v, want a DamageError", err)
	}
}

// TestOtherHistory: files of two databases under one prefix never mix.
func TestOtherHistory(t *testing.T) {
	t.Parallel()
	w := newWorld(t, history.Config{Seed: 5}, 10)
	other := &world{h: history.New(t, history.Config{Seed: 6}), store: w.store, a: w.a}
	other.h.Grow(t, 10)
	w.put(t, levels.Snapshot, 1, 5)
	other.put(t, levels.First, 6, 7)
	_, _, err := w.restore(t, Target{})
	if _, ok := errors.AsType[*ChainError](err); !ok {
		t.Fatalf("%v, want a ChainError", err)
	}
}

// TestVanishingFiles: what retention deletes between listing and reading is
// found elsewhere.
func TestVanishingFiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t, history.Config{Seed: 14}, 20)
	for txid := ltx.TXID(1); txid <= 20; txid++ {
		w.put(t, levels.First, txid, txid)
	}
	plans := 0
	path := filepath.Join(t.TempDir(), "out.db")
	_, err := Restore(t.Context(), Config{Sources: []Source{Of(w.a, "app")}, Path: path, OnPlan: func(*Job) error {
		if plans++; plans == 1 {
			w.put(t, levels.Snapshot, 1, 15)
			for txid := ltx.TXID(1); txid <= 15; txid++ {
				if err := w.a.Delete(t.Context(), "app", []levels.File{{Level: levels.First, Min: txid, Max: txid}}); err != nil {
					return err
				}
			}
		}
		return nil
	}})
	if err := errors.Join(err, w.h.Check(path, 20)); err != nil || plans != 2 {
		t.Fatalf("%d plans: %v", plans, err)
	}
}
