package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/compactor"
	"github.com/ltxstream/ltxstream/internal/daemon"
	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/objstore/objstoretest"
	"github.com/ltxstream/ltxstream/testenv/history"
)

func TestVerify(t *testing.T) {
	t.Parallel()
	m := newMade(t, history.Config{Seed: 6, PageSize: 1024, MaxBlob: 2000}, 12)
	m.put(t, levels.Snapshot, 1, 4)
	m.first(t, 5, 12)
	m.put(t, 2, 5, 8)
	execute(t, "verify", m.dir, dbName).want(t, 0, "10 files, 0 read whole, 0 problems", "from TXID 0000000000000004 to 000000000000000c")
	whole := decode[report](t, execute(t, "verify", m.dir, dbName, "--read-data=full", "--json").want(t, 0))
	if whole.Files != 10 || whole.Read != 10 || len(whole.Problems) != 0 || len(whole.Points) != 1 || whole.Points[0] != (points{4, 12}) {
		t.Errorf("%+v", whole)
	}

	one := levels.File{Level: levels.First, Min: 7, Max: 7}
	good, err := os.ReadFile(m.path(one))
	if err != nil {
		t.Fatal(err)
	}
	size := int64(len(good))
	index := size - ltx.TrailerSize - 8 - int64(good[size-ltx.TrailerSize-8+7]) // small enough for one byte of length
	for name, at := range map[string]int64{
		"magic": 0, "page size": 8, "commit": 12, "min txid": 23, "timestamp": 39, "pre checksum": 45, "last of the header": ltx.HeaderSize - 1,
		"page number": ltx.HeaderSize + 3, "page": ltx.HeaderSize + 30, "last page": index - 9, "index": index + 1, "index length": size - ltx.TrailerSize - 1,
		"post checksum": size - 12, "file checksum": size - 1,
	} {
		flip(t, m.path(one), at)
		got := execute(t, "verify", m.dir, dbName, "--read-data=full").want(t, 21, m.a.Key(dbName, one), "ltx-archive: hint: ")
		if t.Failed() {
			t.Fatalf("%s, byte %d: %s", name, at, got.stdout)
		}
		flip(t, m.path(one), at)
	}
	for name, text := range map[string][]byte{"empty": nil, "short": good[:ltx.HeaderSize+3], "cut": good[:size-1], "longer": append(bytes.Clone(good), 0), "other": bytes.Repeat([]byte("x"), len(good))} {
		if err := os.WriteFile(m.path(one), text, 0o600); err != nil {
			t.Fatal(err)
		}
		got := execute(t, "verify", m.dir, dbName, "--read-data=full", "--json")
		if r := decode[report](t, got); got.code != 21 || len(r.Problems) == 0 || r.Problems[0].Key != m.a.Key(dbName, one) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if err := errors.Join(os.WriteFile(m.path(one), good, 0o600), os.Chtimes(m.path(one), time.Time{}, m.h.State(7).Time)); err != nil {
		t.Fatal(err)
	}
	execute(t, "verify", m.dir, dbName, "--read-data=full").want(t, 0)
}

// TestVerifyFindsHoles: whatever of level 1 is missing, a level above it or a
// snapshot behind it or not, points are lost.
func TestVerifyFindsHoles(t *testing.T) {
	t.Parallel()
	for name, more := range map[string]func(t *testing.T, m *made){
		"alone":            func(*testing.T, *made) {},
		"below a level":    func(t *testing.T, m *made) { m.put(t, 2, 5, 8) },
		"under a snapshot": func(t *testing.T, m *made) { m.put(t, levels.Snapshot, 1, 9) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMade(t, history.Config{Seed: 7}, 12)
			m.put(t, levels.Snapshot, 1, 4)
			m.first(t, 5, 12)
			more(t, m)
			execute(t, "verify", m.dir, dbName).want(t, 0)
			if err := os.Remove(m.path(levels.File{Level: levels.First, Min: 7, Max: 7})); err != nil {
				t.Fatal(err)
			}
			execute(t, "verify", m.dir, dbName).want(t, 22, "1 problems", "cannot be restored")
		})
	}
}

// vanishing is a store in which retention comes by after the first read.
type vanishing struct {
	objstore.Store
	once sync.Once
	do   func()
}

func (s *vanishing) Get(ctx context.Context, key string, offset, size int64) (io.ReadCloser, error) {
	s.once.Do(s.do)
	return s.Store.Get(ctx, key, offset, size)
}

// TestVerifyContinued: files of Litestream's, its newest at level 0, continued by
// the next transaction as a snapshot and by level 1 behind it, are one stretch.
func TestVerifyContinued(t *testing.T) {
	t.Parallel()
	m := newMade(t, history.Config{Seed: 14}, 12)
	m.putAsLitestream(t, levels.Snapshot, 1, 2)
	m.putAsLitestream(t, levels.First, 1, 3)
	m.putAsLitestream(t, levels.First, 4, 6)
	for txid := ltx.TXID(5); txid <= 8; txid++ {
		m.putAsLitestream(t, levels.Stream, txid, txid)
	}
	base := m.put(t, levels.Snapshot, 1, 9)
	m.first(t, 10, 12)
	execute(t, "verify", m.dir, dbName, "--read-data=full").want(t, 0, "11 files, 11 read whole, 0 problems", "from TXID 0000000000000002 to 000000000000000c\n")
	for _, txid := range []ltx.TXID{6, 7, 8, 9, 12} {
		m.restore(t, txid, "--txid="+txid.String())
	}
	if err := os.Remove(base); err != nil {
		t.Fatal(err)
	}
	execute(t, "verify", m.dir, dbName).want(t, 22, "behind TXID 0000000000000008", "cannot be restored")
}

// TestVerifyBesideRetention: files that are deleted while it looks are no damage;
// a hole they leave is one.
func TestVerifyBesideRetention(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		delete []levels.File
		code   int
	}{
		"retention": {[]levels.File{{Level: levels.First, Min: 5, Max: 5}, {Level: levels.First, Min: 6, Max: 6}, {Level: levels.Snapshot, Min: 1, Max: 4}}, 0},
		"hole":      {[]levels.File{{Level: levels.First, Min: 7, Max: 7}}, daemon.ExitGap},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMade(t, history.Config{Seed: 13}, 10)
			m.put(t, levels.Snapshot, 1, 4)
			m.put(t, levels.Snapshot, 1, 6)
			m.first(t, 5, 10)
			a := levels.New(&vanishing{Store: m.a.Store(), do: func() {
				if err := m.a.Delete(t.Context(), dbName, tt.delete); err != nil {
					t.Error(err)
				}
			}}, levels.Decimal)
			share, err := parseShare("full")
			if err != nil {
				t.Fatal(err)
			}
			v := newVerifier(a, dbName, share)
			if _, err := v.verify(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
			if code := daemon.Code(v.verdict()); code != tt.code {
				t.Errorf("code %d, want %d: %+v", code, tt.code, v.problems)
			}
		})
	}
}

// TestVerifyDamageThatTheStoreFinds: it is reported, and the rest looked at.
func TestVerifyDamageThatTheStoreFinds(t *testing.T) {
	t.Parallel()
	m := newMade(t, history.Config{Seed: 13}, 10)
	m.put(t, levels.Snapshot, 1, 4)
	m.first(t, 5, 10)
	rot := &objstoretest.Rot{Store: m.a.Store()}
	a := levels.New(rot, levels.Decimal)
	share, err := parseShare("full")
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{3, 110} { // header, pages
		key := a.Key(dbName, levels.File{Level: levels.First, Min: 7, Max: 7})
		rot.Spoil(key, at)
		v := newVerifier(a, dbName, share)
		if _, err := v.verify(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		if code := daemon.Code(v.verdict()); code != daemon.ExitUnverified || len(v.problems) == 0 || v.problems[0].Key != key {
			t.Errorf("byte %d: code %d, want %d: %+v", at, code, daemon.ExitUnverified, v.problems)
		}
	}
}

// TestVerifyAfterRetention: a snapshot that was kept without what followed it is
// no gap; one whose followers are there in part is at the end of one.
func TestVerifyAfterRetention(t *testing.T) {
	t.Parallel()
	m := newMade(t, history.Config{Seed: 16}, 12)
	for _, hi := range []ltx.TXID{2, 4, 8} {
		m.put(t, levels.Snapshot, 1, hi)
	}
	m.put(t, levels.First, 7, 9) // the point at 8 rests on it too
	m.first(t, 10, 12)
	execute(t, "verify", m.dir, dbName).want(t, 0, "from TXID 0000000000000004 to 0000000000000004", "from TXID 0000000000000008 to 000000000000000c", " 0 problems")
	m.first(t, 6, 6)
	execute(t, "verify", m.dir, dbName).want(t, 22, "between TXID 0000000000000004 and 0000000000000008")
}

// TestVerifyFindsStrangers: files without checksums are Litestream's, from before
// ltx-archive went on at that place, or its own, which then are in the metadata;
// else somebody writes there.
func TestVerifyFindsStrangers(t *testing.T) {
	t.Parallel()
	m := newMade(t, history.Config{Seed: 18}, 12)
	m.putAsLitestream(t, levels.Snapshot, 1, 2)
	m.putAsLitestream(t, levels.Stream, 3, 4)
	m.put(t, levels.First, 5, 8)
	m.putWith(t, compactor.MergeOptions{NoChecksums: true}, levels.First, 9, 10)
	execute(t, "verify", m.dir, dbName, "--read-data=full").want(t, 0, "4 files", " 0 problems")
	m.restore(t, 10)
	m.putAsLitestream(t, levels.Stream, 11, 12)
	execute(t, "verify", m.dir, dbName).want(t, 22, "0/000000000000000b-000000000000000c.ltx: it tells no checksum", "something else writes")
}

// TestVerifyWaitsForATimestamp: Litestream gives a file its name before its time.
func TestVerifyWaitsForATimestamp(t *testing.T) {
	t.Parallel()
	m := newMade(t, history.Config{Seed: 17}, 4)
	path := m.put(t, levels.First, 1, 4)
	if err := os.Chtimes(path, time.Time{}, time.Now()); err != nil {
		t.Fatal(err)
	}
	store := &vanishing{Store: m.a.Store(), do: func() { // after the listing
		if err := os.Chtimes(path, time.Time{}, m.h.Last().Time); err != nil {
			t.Error(err)
		}
	}}
	v := newVerifier(levels.New(store, levels.Decimal), dbName, func(string) bool { return false })
	if _, err := v.verify(t.Context(), 1); err != nil || v.verdict() != nil {
		t.Error(err, v.verdict())
	}
}

// uneven is a store whose listings lack a file the first time.
type uneven struct {
	objstore.Store
	lacks string // a key
	lists int
}

func (s *uneven) List(ctx context.Context, prefix, after string) iter.Seq2[objstore.Info, error] {
	first := strings.HasPrefix(s.lacks, prefix)
	if first {
		s.lists++
		first = s.lists == 1
	}
	return func(yield func(objstore.Info, error) bool) {
		for info, err := range s.Store.List(ctx, prefix, after) {
			if (!first || info.Key != s.lacks) && !yield(info, err) {
				return
			}
		}
	}
}

// TestVerifyBesideAWriter: a listing that has a file which was written while it
// ran, and lacks the one written before it, shows no gap.
func TestVerifyBesideAWriter(t *testing.T) {
	t.Parallel()
	m := newMade(t, history.Config{Seed: 14}, 10)
	m.first(t, 1, 10)
	store := &uneven{Store: m.a.Store(), lacks: m.a.Key(dbName, levels.File{Level: levels.First, Min: 9, Max: 9})}
	v := newVerifier(levels.New(store, levels.Decimal), dbName, func(string) bool { return true })
	catalog, err := v.verify(t.Context(), 1)
	if err := errors.Join(err, v.verdict()); err != nil {
		t.Fatal(err)
	}
	if len(catalog.Files) != 10 || v.read(catalog) != 10 || store.lists != 2 {
		t.Errorf("%d files, %d read, listed %d times", len(catalog.Files), v.read(catalog), store.lists)
	}
}

// TestVerifyFindsOtherHistory: two databases under one name.
func TestVerifyFindsOtherHistory(t *testing.T) {
	t.Parallel()
	m := newMade(t, history.Config{Seed: 8}, 8)
	m.first(t, 1, 5)
	m.h = history.New(t, history.Config{Seed: 9})
	m.h.Grow(t, 8)
	m.first(t, 6, 8)
	execute(t, "verify", m.dir, dbName).want(t, 22, "checksum")
	out := filepath.Join(t.TempDir(), "out.db")
	execute(t, "restore", m.dir, dbName, out, "--no-stream").want(t, 22, "does not continue")
	empty(t, filepath.Dir(out))
}
