package levels

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/superfly/ltx"
	"go.uber.org/goleak"

	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/objstore/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// header is the beginning of an LTX file.
func header(t testing.TB, lo, hi ltx.TXID, when time.Time) []byte {
	t.Helper()
	h := ltx.Header{Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum, PageSize: 4096, Commit: 1, MinTXID: lo, MaxTXID: hi, Timestamp: when.UnixMilli()}
	b, err := h.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func put(t testing.TB, a *Archive, db string, f File, body []byte) {
	t.Helper()
	if f.Timestamp.IsZero() {
		f.Timestamp = start
	}
	got, err := a.Put(t.Context(), db, f, bytes.NewReader(body), nil)
	if f.Size = int64(len(body)); err != nil || got != f {
		t.Fatalf("put %v: %v, %v", f, got, err)
	}
}

func collect[T any](t testing.TB, seq iter.Seq2[T, error]) (all []T) {
	t.Helper()
	for v, err := range seq {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, v)
	}
	return all
}

// TestLayouts: the keys are Litestream's.
func TestLayouts(t *testing.T) {
	t.Parallel()
	f := File{Level: 1, Min: 0x2a, Max: 0x1234567890abcdef}
	snapshot := File{Level: Snapshot, Min: 1, Max: 3}
	for layout, want := range map[Layout][2]string{
		Decimal: {"app/ltx/1/000000000000002a-1234567890abcdef.ltx", "app/ltx/9/0000000000000001-0000000000000003.ltx"},
		Hex:     {"app/0001/000000000000002a-1234567890abcdef.ltx", "app/0009/0000000000000001-0000000000000003.ltx"},
	} {
		a := New(mem.New(), layout)
		if got := a.Key("app", f); got != want[0] {
			t.Errorf("key %s, want %s", got, want[0])
		}
		put(t, a, "app", snapshot, []byte("x"))
		put(t, a, "app", f, []byte("xyz"))
		if keys := collect(t, a.Store().List(t.Context(), "", "")); keys[len(keys)-1].Key != want[1] {
			t.Errorf("stored as %s, want %s", keys[len(keys)-1].Key, want[1])
		}
		listed := collect(t, a.Files(t.Context(), "app", 1, 0))
		if len(listed) != 1 || listed[0].Min != f.Min || listed[0].Max != f.Max || listed[0].Size != 3 || !listed[0].Timestamp.Equal(start) || listed[0].Level != 1 {
			t.Errorf("listed %+v", listed)
		}
	}
}

// TestFiles: in TXID order, from any TXID on, without what is no file of ours.
func TestFiles(t *testing.T) {
	t.Parallel()
	for _, layout := range []Layout{Decimal, Hex} {
		a := New(mem.New(), layout)
		for _, i := range rand.Perm(300) {
			put(t, a, "app", File{Level: First, Min: ltx.TXID(i + 1), Max: ltx.TXID(i + 1)}, nil)
		}
		folder := layout.folder("app", First)
		for _, junk := range []string{"x", "0000000000000007.ltx", "0000000000000007-0000000000000006.ltx", "0000000000000000-0000000000000006.ltx",
			"0000000000000007-0000000000000009.ltx.tmp", "000000000000000A-000000000000000B.ltx", "7-9.ltx", "0000000000000007-0000000000000009.ltx/x"} {
			if _, err := a.Store().Put(t.Context(), folder+junk, strings.NewReader(""), objstore.PutOptions{Timestamp: start}); err != nil {
				t.Fatal(err)
			}
		}
		for _, from := range []ltx.TXID{0, 1, 2, 7, 255, 256, 300, 301} {
			want := max(from, 1)
			for f := range slices.Values(collect(t, a.Files(t.Context(), "app", First, from))) {
				if f.Min != want {
					t.Fatalf("from %d: %v, want %d", from, f, want)
				}
				want++
			}
			if want != max(301, from) {
				t.Errorf("from %d: ended before %d", from, want)
			}
		}
		if got := collect(t, a.Files(t.Context(), "ap", First, 0)); len(got) > 0 {
			t.Errorf("of another database: %v", got)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for _, err := range a.Files(ctx, "app", First, 0) {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%v, want context.Canceled", err)
			}
		}
	}
}

// counting is a store that counts requests and can be changed.
type counting struct {
	objstore.Store
	lists, stats, gets atomic.Int64
	info               func(objstore.Info) objstore.Info // as listed
	stat               func(objstore.Info) (objstore.Info, error)
}

func (s *counting) List(ctx context.Context, prefix, after string) iter.Seq2[objstore.Info, error] {
	s.lists.Add(1)
	return func(yield func(objstore.Info, error) bool) {
		for info, err := range s.Store.List(ctx, prefix, after) {
			if s.info != nil {
				info = s.info(info)
			}
			if !yield(info, err) {
				return
			}
		}
	}
}

func (s *counting) Stat(ctx context.Context, key string) (objstore.Info, error) {
	s.stats.Add(1)
	info, err := s.Store.Stat(ctx, key)
	if err == nil && s.stat != nil {
		return s.stat(info)
	}
	return info, err
}

func (s *counting) Get(ctx context.Context, key string, offset, size int64) (io.ReadCloser, error) {
	s.gets.Add(1)
	return s.Store.Get(ctx, key, offset, size)
}

// TestDatabases: names of which one begins another one sort around the slash.
func TestDatabases(t *testing.T) {
	t.Parallel()
	for _, layout := range []Layout{Decimal, Hex} {
		store := &counting{Store: mem.New()}
		a := New(store, layout)
		names := []string{"a", "a-b", "a0", "a00", "a_", "aa", "A", "0", "b", "b-", "b-0", "other.db"}
		for _, name := range names {
			for i := range ltx.TXID(20) {
				put(t, a, name, File{Level: First, Min: i + 1, Max: i + 1}, nil)
			}
			put(t, a, name, File{Level: Snapshot, Min: 1, Max: 9}, nil)
		}
		for _, key := range []string{"file", "a-c/file", "a-c/ltx/1/file", "a-c/0001/file", "z/ltx/10/0000000000000001-0000000000000001.ltx", "z/000a/0000000000000001-0000000000000001.ltx", "ltx/10/0000000000000001-0000000000000001.ltx", "000a/0000000000000001-0000000000000001.ltx"} {
			if _, err := store.Put(t.Context(), key, strings.NewReader(""), objstore.PutOptions{Timestamp: start}); err != nil {
				t.Fatal(err)
			}
		}
		store.lists.Store(0)
		got := collect(t, a.Databases(t.Context()))
		if n := store.lists.Load(); n > int64(2*len(names)) {
			t.Errorf("%d requests for %d names", n, len(names))
		}
		sorted := slices.Sorted(slices.Values(got))
		slices.Sort(names)
		if !slices.Equal(sorted, names) {
			t.Errorf("%v\nwant %v", sorted, names)
		}
		other := collect(t, a.Databases(t.Context(), func(rest string) bool { return rest == "file" }))
		if !slices.Equal(slices.Sorted(slices.Values(other)), slices.Sorted(slices.Values(append(got, "a-c")))) {
			t.Errorf("with another format: %v", other)
		}
		for name := range a.Databases(t.Context()) {
			if name != got[0] {
				t.Errorf("the first one is %s, and was %s", name, got[0])
			}
			break
		}
	}
}

// TestRoot: a database whose levels lie at the URL itself, as Litestream puts
// them, beside others, of which some are called like its folders.
func TestRoot(t *testing.T) {
	t.Parallel()
	f := File{Level: 1, Min: 0x2a, Max: 0x2b}
	for layout, want := range map[Layout]string{
		Decimal: "ltx/1/000000000000002a-000000000000002b.ltx",
		Hex:     "0001/000000000000002a-000000000000002b.ltx",
	} {
		store := &counting{Store: mem.New()}
		a := New(store, layout)
		if has, err := a.Has(t.Context(), Root); has || err != nil {
			t.Errorf("an empty archive has it: %v", err)
		}
		put(t, a, Root, f, []byte("xyz"))
		if keys := collect(t, store.List(t.Context(), "", "")); len(keys) != 1 || keys[0].Key != want || a.Key(Root, f) != want {
			t.Errorf("%v, want %s", keys, want)
		}
		if got := collect(t, a.Files(t.Context(), Root, 1, 0)); len(got) != 1 || got[0].Min != f.Min || got[0].Max != f.Max {
			t.Errorf("listed %v", got)
		}
		for name, want := range map[string]bool{Root: true, "ltx": false, "0001": false} {
			if has, err := a.Has(t.Context(), name); has != want || err != nil {
				t.Errorf("has %s: %t, %v", name, has, err)
			}
		}
		if got := collect(t, a.Databases(t.Context())); !slices.Equal(got, []string{Root}) {
			t.Errorf("databases %v", got)
		}
		names := []string{Root, "0", "0001", "0001-", "00012", "a", "ltx", "ltx-", "ltx0"}
		for _, name := range names {
			for level := First; level <= Snapshot; level++ {
				for i := range ltx.TXID(20) {
					put(t, a, name, File{Level: level, Min: i + 1, Max: i + 0x1234}, nil)
				}
			}
		}
		store.lists.Store(0)
		got := collect(t, a.Databases(t.Context()))
		if n := store.lists.Load(); n > int64(2*len(names)+10) {
			t.Errorf("%d requests for %d names", n, len(names))
		}
		if slices.Sort(got); !slices.Equal(got, names) {
			t.Errorf("%v\nwant %v", got, names)
		}
	}
}

func TestCheckDB(t *testing.T) {
	t.Parallel()
	for name, ok := range map[string]bool{
		".": true, "./a": false, "app": true, "a-b_0": true, "other.db": true, "": false, "a/b": false, "..": false, ".a": false, "a.": false, "a b": false, "é": false, "a/": false, "../a": false, strings.Repeat("a", 701): false,
	} {
		if err := CheckDB(name); (err == nil) != ok || err != nil && !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestPutReplaceDelete(t *testing.T) {
	t.Parallel()
	a := New(mem.New(), Decimal)
	f := File{Level: First, Min: 1, Max: 2, Timestamp: start}
	put(t, a, "app", f, []byte("one"))
	if _, err := a.Put(t.Context(), "app", f, strings.NewReader("two"), nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("put over a file: %v, want fs.ErrExist", err)
	}
	if got, err := a.Replace(t.Context(), "app", f, strings.NewReader("three"), nil); err != nil || got.Size != 5 {
		t.Errorf("replace: %+v, %v", got, err)
	}
	r, err := a.Open(t.Context(), "app", f, 1, 3)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r); string(b) != "hre" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	for range 2 {
		if err := a.Delete(t.Context(), "app", []File{f, {Level: 2, Min: 1, Max: 1}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.Open(t.Context(), "app", f, 0, -1); !IsGone(err) {
		t.Errorf("open what was deleted: %v", err)
	}
}

func TestHeaderAndTrailer(t *testing.T) {
	t.Parallel()
	good := append(header(t, 3, 5, start), bytes.Repeat([]byte{0xee}, ltx.TrailerSize)...)
	for name, tt := range map[string]struct {
		f    File
		body []byte
		ok   bool
	}{
		"good":            {File{Level: First, Min: 3, Max: 5}, good, true},
		"other range":     {File{Level: First, Min: 3, Max: 6}, good, false},
		"other begin":     {File{Level: First, Min: 4, Max: 5}, good, false},
		"other snapshot":  {File{Level: Snapshot, Min: 1, Max: 6}, good, false},
		"cut":             {File{Level: First, Min: 3, Max: 5}, good[:50], false},
		"empty":           {File{Level: First, Min: 3, Max: 5}, nil, false},
		"something else":  {File{Level: First, Min: 3, Max: 5}, bytes.Repeat([]byte("x"), 200), false},
		"no page size":    {File{Level: First, Min: 3, Max: 5}, append(bytes.Clone(good[:8]), append(make([]byte, 4), good[12:]...)...), false},
		"trailer cut off": {File{Level: First, Min: 3, Max: 5}, good[:ltx.HeaderSize], true},
	} {
		a := New(mem.New(), Hex)
		put(t, a, "app", tt.f, tt.body)
		tt.f.Size = int64(len(tt.body))
		hdr, err := a.Header(t.Context(), "app", tt.f)
		_, damaged := errors.AsType[*DamageError](err)
		if (err == nil) != tt.ok || damaged == tt.ok || tt.ok && hdr.MaxTXID != tt.f.Max {
			t.Errorf("%s: %v", name, err)
		}
		_, err = a.Trailer(t.Context(), "app", tt.f)
		if damaged := errors.As(err, new(*DamageError)); damaged != (len(tt.body) < ltx.HeaderSize+ltx.TrailerSize) {
			t.Errorf("%s: trailer: %v", name, err)
		}
	}
	a := New(mem.New(), Hex)
	if _, err := a.Header(t.Context(), "app", File{Level: First, Min: 1, Max: 1}); !IsGone(err) {
		t.Errorf("header of nothing: %v", err)
	}
}

// library is an archive whose files are nothing but headers.
func library(t testing.TB, n int, when func(i int) time.Time) (*counting, *Archive) {
	t.Helper()
	store := &counting{Store: mem.New()}
	a := New(store, Hex)
	for i := range n {
		txid := ltx.TXID(i + 1)
		put(t, a, "app", File{Level: First, Min: txid, Max: txid, Timestamp: when(i)}, header(t, txid, txid, when(i)))
	}
	return store, a
}

// silent is a listing without timestamps, as on S3.
func silent(info objstore.Info) objstore.Info { info.Timestamp = time.Time{}; return info }

// TestBeforeOnS3: the listing tells no timestamps, each costs a request.
func TestBeforeOnS3(t *testing.T) {
	t.Parallel()
	const n = 100_000
	store := virtual{n: n}
	counted := &counting{Store: store}
	a := New(counted, Hex)
	files := collect(t, a.Files(t.Context(), "app", First, 0))
	if len(files) != n {
		t.Fatalf("%d files", len(files))
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range 60 {
		want := rng.IntN(n + 1)
		switch i {
		case 0:
			want = 0
		case 1:
			want = n
		}
		when := store.when(want - 1) // of the last one before
		if i%2 == 1 {
			when = store.when(want).Add(-time.Millisecond)
		}
		counted.stats.Store(0)
		counted.gets.Store(0)
		got, err := a.Before(t.Context(), "app", slices.Clone(files), when)
		if err != nil || got != want {
			t.Fatalf("%d files before %s, %v; want %d", got, when, err, want)
		}
		if stats, gets := counted.stats.Load(), counted.gets.Load(); stats > 40 || gets > 2 {
			t.Errorf("%d stats and %d gets", stats, gets)
		}
	}
}

// virtual is a store of very many files of one transaction each, a second apart.
type virtual struct {
	objstore.Store
	n int
}

func (s virtual) when(i int) time.Time { return start.Add(time.Duration(i) * time.Second) }

func (s virtual) key(i int) string {
	return "app/0001/" + ltx.FormatFilename(ltx.TXID(i+1), ltx.TXID(i+1))
}

func (s virtual) List(_ context.Context, _, _ string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		for i := range s.n {
			if !yield(objstore.Info{Key: s.key(i), Size: ltx.HeaderSize}, nil) {
				return
			}
		}
	}
}

func (s virtual) index(key string) int {
	var lo, hi ltx.TXID
	_, _ = fmt.Sscanf(strings.TrimPrefix(key, "app/0001/"), "%x-%x", &lo, &hi)
	return int(lo - 1)
}

func (s virtual) Stat(_ context.Context, key string) (objstore.Info, error) {
	return objstore.Info{Key: key, Size: ltx.HeaderSize, Timestamp: s.when(s.index(key))}, nil
}

func (s virtual) Get(_ context.Context, key string, _, _ int64) (io.ReadCloser, error) {
	i := s.index(key)
	h := ltx.Header{Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum, PageSize: 4096, Commit: 1, MinTXID: ltx.TXID(i + 1), MaxTXID: ltx.TXID(i + 1), Timestamp: s.when(i).UnixMilli()}
	b, err := h.MarshalBinary()
	return io.NopCloser(bytes.NewReader(b)), err
}

// TestBefore: whatever the metadata says, the answer is that of the headers.
func TestBefore(t *testing.T) {
	t.Parallel()
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 2))
		now := start
		var times []time.Time
		for range rng.IntN(60) + 1 {
			now = now.Add(time.Duration(rng.IntN(4)) * 170 * time.Millisecond) // some at one moment, several in a second
			times = append(times, now)
		}
		store, a := library(t, len(times), func(i int) time.Time { return times[i] })
		for name, info := range map[string]func(objstore.Info) objstore.Info{
			"exact": nil,
			"none":  silent,
			"seconds": func(i objstore.Info) objstore.Info {
				i.Timestamp, i.Coarse = i.Timestamp.Truncate(time.Second), time.Second
				return i
			},
			"copied":  func(i objstore.Info) objstore.Info { i.Timestamp = start.Add(time.Hour); return i },
			"early":   func(i objstore.Info) objstore.Info { i.Timestamp = start.Add(-time.Hour); return i },
			"between": func(i objstore.Info) objstore.Info { i.Timestamp = times[len(times)/2]; return i },
			"any": func(i objstore.Info) objstore.Info {
				i.Timestamp = times[rng.IntN(len(times))]
				return i
			},
		} {
			store.info = info
			files := collect(t, a.Files(t.Context(), "app", First, 0))
			for i := -1; i <= len(times); i++ {
				when := start.Add(-time.Second)
				if i == len(times) {
					when = now.Add(time.Second)
				} else if i >= 0 {
					when = times[i]
				}
				for _, d := range []time.Duration{0, time.Millisecond, -time.Millisecond} {
					when := when.Add(d)
					want := 0
					for want < len(times) && !times[want].After(when) {
						want++
					}
					looked := slices.Clone(files)
					got, err := a.Before(t.Context(), "app", looked, when)
					if err != nil || got != want {
						t.Fatalf("seed %d, %s: %d before %s, %v; want %d", seed, name, got, when, err, want)
					}
					for _, n := range []int{want - 1, want} {
						if n >= 0 && n < len(times) && (!looked[n].Timestamp.Equal(times[n]) || looked[n].Coarse != 0) {
							t.Fatalf("seed %d, %s: the boundary has %s, want %s", seed, name, looked[n].Timestamp, times[n])
						}
					}
				}
			}
		}
	}
}

// TestTimeIsNeverGuessed: what has no timestamp, or one that cannot be read, is
// an error.
func TestTimeIsNeverGuessed(t *testing.T) {
	t.Parallel()
	store, a := library(t, 9, func(i int) time.Time { return start.Add(time.Duration(i) * time.Hour) })
	store.info = silent
	files := collect(t, a.Files(t.Context(), "app", First, 0))
	broke := errors.New("the request failed")

	store.stat = func(objstore.Info) (objstore.Info, error) { return objstore.Info{}, broke }
	if _, err := a.Stamped(t.Context(), "app", files[0]); !errors.Is(err, broke) {
		t.Errorf("stat failed: %v", err)
	}
	if _, err := a.Before(t.Context(), "app", files, start.Add(4*time.Hour)); !errors.Is(err, broke) {
		t.Errorf("stat failed: %v", err)
	}
	store.stat = func(i objstore.Info) (objstore.Info, error) { return silent(i), nil } // put by something else
	for i, f := range files {
		if f, err := a.Stamped(t.Context(), "app", f); err != nil || !f.Timestamp.Equal(start.Add(time.Duration(i)*time.Hour)) {
			t.Errorf("%s, %v", f.Timestamp, err)
		}
	}
	if n, err := a.Before(t.Context(), "app", slices.Clone(files), start.Add(4*time.Hour)); n != 5 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	for name, body := range map[string][]byte{
		"no header": []byte("nothing"), "header without a time": header(t, 5, 5, time.UnixMilli(0)), "header from before time": header(t, 5, 5, time.UnixMilli(-5)),
	} {
		if _, err := a.Replace(t.Context(), "app", File{Level: First, Min: 5, Max: 5, Timestamp: start}, bytes.NewReader(body), nil); err != nil {
			t.Fatal(err)
		}
		if f, err := a.Stamped(t.Context(), "app", files[4]); !errors.As(err, new(*DamageError)) {
			t.Errorf("%s: %s, %v; want a DamageError", name, f.Timestamp, err)
		}
		if n, err := a.Before(t.Context(), "app", slices.Clone(files), start.Add(4*time.Hour)); !errors.As(err, new(*DamageError)) {
			t.Errorf("%s: %d, %v; want a DamageError", name, n, err)
		}
	}
}

// TestCover is held against a search over all ways.
func TestCover(t *testing.T) {
	t.Parallel()
	for seed := range uint64(500) {
		rng := rand.New(rand.NewPCG(seed, 3))
		var files []File
		for range rng.IntN(12) {
			lo := ltx.TXID(rng.IntN(15) + 1)
			files = append(files, File{Min: lo, Max: lo + ltx.TXID(rng.IntN(6))})
		}
		slices.SortFunc(files, func(a, b File) int { return int(a.Min) - int(b.Min) })
		pos, to := ltx.TXID(rng.IntN(6)+1), ltx.TXID(rng.IntN(20)+1)
		chain := Cover(files, func(f File) File { return f }, pos, to)
		end := pos
		for _, f := range chain {
			if f.Min > end+1 || f.Max <= end || f.Max > to || f.IsBase() {
				t.Fatalf("seed %d: %v in %v from %d to %d", seed, f, chain, pos, to)
			}
			end = f.Max
		}
		reach, n := farthest(files, pos, to)
		if end != max(reach, pos) || len(chain) != n {
			t.Fatalf("seed %d: %v reaches %d, the search %d by %d files", seed, chain, end, reach, n)
		}
	}
}

// farthest is how far files lead, and the least number of them.
func farthest(files []File, pos, to ltx.TXID) (end ltx.TXID, n int) {
	need := map[ltx.TXID]int{pos: 0}
	for range len(files) + 1 {
		for _, f := range files {
			for at, n := range need {
				if old, ok := need[f.Max]; !f.IsBase() && f.Max <= to && f.Max > at && f.Min <= at+1 && (!ok || n+1 < old) {
					need[f.Max] = n + 1
				}
			}
		}
	}
	for at := range need {
		end = max(end, at)
	}
	return end, need[end]
}
