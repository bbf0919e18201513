package objstoretest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ltxstream/ltxstream/objstore"
)

func testRoundTrip(t *testing.T, b Backend) {
	s := b.open(t)
	for _, size := range []int64{0, 1, 100, 64<<10 + 1, 3 << 20} {
		key := fmt.Sprintf("db/ltx/1/%d.ltx", size)
		body := content(uint64(size), size)
		meta := map[string]string{"checksum": "f00dfeed00000001", "second2": "-/=+"}
		info, err := s.Put(t.Context(), key, bytes.NewReader(body), objstore.PutOptions{Timestamp: stamp.In(time.FixedZone("", 3600)), Meta: meta})
		if err != nil {
			t.Fatal(err)
		}
		if info.Key != key || info.Size != size {
			t.Errorf("put says %+v, want key %s size %d", info, key, size)
		}
		wantContent(t, s, key, body)
		got, err := s.Stat(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		if got.Key != key || got.Size != size || !maps.Equal(got.Meta, meta) {
			t.Errorf("stat says %+v, want key %s size %d meta %v", got, key, size, meta)
		}
		b.checkStamp(t, got)
	}
}

// checkStamp compares a timestamp as exactly as the backend promises.
func (b Backend) checkStamp(t *testing.T, info objstore.Info) {
	t.Helper()
	if info.Coarse != b.Coarse {
		t.Errorf("%s: coarse by %s, want %s", info.Key, info.Coarse, b.Coarse)
	}
	want := stamp
	if b.Coarse > 0 {
		want = want.Truncate(b.Coarse)
	}
	if !info.Timestamp.Equal(want) || info.Timestamp.Location() != time.UTC {
		t.Errorf("%s: timestamp %s, want %s", info.Key, info.Timestamp, want)
	}
}

func testOverwrite(t *testing.T, b Backend) {
	s := b.open(t)
	put(t, s, "a/x.ltx", content(1, 1000))
	later := stamp.Add(time.Hour)
	if _, err := s.Put(t.Context(), "a/x.ltx", generator(2, 10), objstore.PutOptions{Timestamp: later}); err != nil {
		t.Fatal(err)
	}
	wantContent(t, s, "a/x.ltx", content(2, 10))
	info, err := s.Stat(t.Context(), "a/x.ltx")
	if err != nil || info.Size != 10 || info.Timestamp.Sub(later).Abs() > b.Coarse {
		t.Fatalf("stat %+v, %v: want size 10, timestamp %s", info, err, later)
	}
	if got := listKeys(t, s, "", ""); got != "a/x.ltx" {
		t.Fatalf("list %q", got)
	}
}

func testRanges(t *testing.T, b Backend) {
	s := b.open(t)
	const size = 300_000
	body := content(7, size)
	put(t, s, "r/x.ltx", body)
	check := func(offset, n int64) {
		t.Helper()
		from := min(offset, size)
		to := int64(size)
		if n >= 0 {
			to = min(size, from+n)
		}
		if got := get(t, s, "r/x.ltx", offset, n); !bytes.Equal(got, body[from:to]) {
			t.Errorf("range [%d,+%d): have %d bytes, want %d, or other ones", offset, n, len(got), to-from)
		}
	}
	for _, r := range [][2]int64{
		{0, -1}, {0, 0}, {0, 1}, {0, size}, {0, size + 1}, {1, -1}, {1, 5}, {17, 0},
		{size - 1, 1}, {size - 1, 10}, {size - 1, -1}, {size, 1}, {size, -1}, {size, 0}, {size + 5, 3}, {size + 5, -1},
	} {
		check(r[0], r[1])
	}
	for range 20 {
		check(rand.Int64N(size), rand.Int64N(size))
	}
	put(t, s, "r/empty.ltx", nil)
	for _, r := range [][2]int64{{0, -1}, {0, 5}, {3, -1}} {
		if got := get(t, s, "r/empty.ltx", r[0], r[1]); len(got) != 0 {
			t.Errorf("range %v of nothing has %d bytes", r, len(got))
		}
	}
	if _, err := s.Get(t.Context(), "r/x.ltx", -1, 5); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("negative offset: %v, want fs.ErrInvalid", err)
	}
}

// readErr is the error of Get, wherever it shows: at the call or while reading.
func readErr(t *testing.T, s objstore.Store, key string, offset, size int64) error {
	r, err := s.Get(t.Context(), key, offset, size)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(io.Discard, r)
	return err
}

func testNotExist(t *testing.T, b Backend) {
	s := b.open(t)
	check := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, fs.ErrNotExist) || errors.Is(err, objstore.ErrTransient) || errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: %v, want fs.ErrNotExist alone", what, err)
		}
		if err != nil && !strings.Contains(err.Error(), "no/such.ltx") {
			t.Errorf("%s: %q does not name the object", what, err)
		}
	}
	try := func() {
		t.Helper()
		check("get", readErr(t, s, "no/such.ltx", 0, -1))
		check("get range", readErr(t, s, "no/such.ltx", 10, 5))
		check("get nothing", readErr(t, s, "no/such.ltx", 0, 0))
		_, err := s.Stat(t.Context(), "no/such.ltx")
		check("stat", err)
		if err := s.Delete(t.Context(), "no/such.ltx"); err != nil {
			t.Errorf("delete: %v, want nil", err)
		}
	}
	try()
	putString(t, s, "no/such.ltx/below.ltx", "x") // a "directory" of that name is no object
	try()
	if err := s.Delete(t.Context(), "no/such.ltx/below.ltx"); err != nil {
		t.Fatal(err)
	}
	try()
	putString(t, s, "no/such.ltx", "x") // and may become one
	wantContent(t, s, "no/such.ltx", []byte("x"))
	if err := s.Delete(t.Context(), "no/such.ltx"); err != nil {
		t.Fatal(err)
	}
	try()
}

// eachCall runs every method of s and hands over its error.
func eachCall(t *testing.T, s objstore.Store, see func(call string, err error)) {
	_, err := s.Put(t.Context(), "a/x.ltx", strings.NewReader("x"), objstore.PutOptions{Timestamp: stamp})
	see("put", err)
	_, err = s.Put(t.Context(), "a/x.ltx", strings.NewReader("x"), objstore.PutOptions{Timestamp: stamp, IfAbsent: true})
	see("put if absent", err)
	see("get", readErr(t, s, "a/x.ltx", 0, -1))
	see("get range", readErr(t, s, "a/x.ltx", 1, 1))
	_, err = s.Stat(t.Context(), "a/x.ltx")
	see("stat", err)
	err = nil
	for _, err = range s.List(t.Context(), "", "") {
	}
	see("list", err)
	see("delete", s.Delete(t.Context(), "a/x.ltx"))
}

// testMissingBucket: a missing bucket must never look like an empty archive.
func testMissingBucket(t *testing.T, b Backend) {
	if b.Missing == nil {
		t.Skip("the backend has no bucket that could be missing")
	}
	s := b.Missing(t)
	defer s.Close()
	eachCall(t, s, func(call string, err error) {
		if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) || errors.Is(err, objstore.ErrTransient) {
			t.Errorf("%s: %v, want a permanent error that is not fs.ErrNotExist", call, err)
		}
	})
}

func testDenied(t *testing.T, b Backend) {
	if b.Denied == nil {
		t.Skip("the server cannot deny")
	}
	putString(t, b.open(t), "a/x.ltx", "x")
	s := b.Denied(t)
	defer s.Close()
	eachCall(t, s, func(call string, err error) {
		if !errors.Is(err, fs.ErrPermission) || errors.Is(err, objstore.ErrTransient) || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, want fs.ErrPermission alone", call, err)
		}
	})
}

func testIfAbsent(t *testing.T, b Backend) {
	s := b.open(t)
	opts := objstore.PutOptions{Timestamp: stamp, IfAbsent: true}
	for _, size := range []int64{10, max(b.PartSize, 1<<20) + 10} {
		key := fmt.Sprintf("a/%d.ltx", size)
		if _, err := s.Put(t.Context(), key, generator(1, size), opts); err != nil {
			t.Fatal(err)
		}
		for _, other := range []int64{5, size, 2 * size} {
			_, err := s.Put(t.Context(), key, generator(2, other), opts)
			if !errors.Is(err, fs.ErrExist) || errors.Is(err, objstore.ErrTransient) {
				t.Fatalf("second put of %d bytes: %v, want fs.ErrExist", other, err)
			}
		}
		wantContent(t, s, key, content(1, size))
		if err := s.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Put(t.Context(), key, generator(3, size), opts); err != nil {
			t.Fatalf("put if absent after a delete: %v", err)
		}
		wantContent(t, s, key, content(3, size))
	}
}

// testIfAbsentRace has several stores: one of them alone could keep order by
// locks of its own.
func testIfAbsentRace(t *testing.T, b Backend) {
	s, prefix := b.openPrefix(t)
	stores := []objstore.Store{s, b.reopen(t, prefix), b.reopen(t, prefix), b.reopen(t, prefix)}
	for round := range 10 {
		key := fmt.Sprintf("race/%d.ltx", round)
		var winner atomic.Int64
		var wins atomic.Int64
		var g errgroup.Group
		for i := range 8 {
			g.Go(func() error {
				_, err := stores[i%len(stores)].Put(t.Context(), key, generator(uint64(i), 5000), objstore.PutOptions{Timestamp: stamp, IfAbsent: true})
				switch {
				case err == nil:
					wins.Add(1)
					winner.Store(int64(i))
				case !errors.Is(err, fs.ErrExist):
					return err
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		if wins.Load() != 1 {
			t.Fatalf("%d winners, want 1", wins.Load())
		}
		wantContent(t, s, key, content(uint64(winner.Load()), 5000))
	}
}

func testConcurrent(t *testing.T, b Backend) {
	s := b.open(t)
	var g errgroup.Group
	g.SetLimit(16)
	for i := range 16 {
		g.Go(func() error {
			for turn := range 3 {
				key := fmt.Sprintf("c/%02d.ltx", i)
				want := content(uint64(i*100+turn), int64(20_000+i))
				if _, err := s.Put(t.Context(), key, bytes.NewReader(want), objstore.PutOptions{Timestamp: stamp}); err != nil {
					return err
				}
				r, err := s.Get(t.Context(), key, 100, 5000)
				if err != nil {
					return err
				}
				got, err := io.ReadAll(r)
				if err := errors.Join(err, r.Close()); err != nil {
					return err
				}
				if !bytes.Equal(got, want[100:5100]) {
					return fmt.Errorf("%s: read something else than was put", key)
				}
				for _, err := range s.List(t.Context(), "c/", "") {
					if err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if n := len(list(t, s, "c/", "")); n != 16 {
		t.Fatalf("%d objects, want 16", n)
	}
}

func testSecondStore(t *testing.T, b Backend) {
	one, prefix := b.openPrefix(t)
	two := b.reopen(t, prefix)
	putString(t, one, "a/x.ltx", "one")
	wantContent(t, two, "a/x.ltx", []byte("one"))
	if got := listKeys(t, two, "a/", ""); got != "a/x.ltx" {
		t.Fatalf("list %q", got)
	}
	if err := two.Delete(t.Context(), "a/x.ltx"); err != nil {
		t.Fatal(err)
	}
	if _, err := one.Stat(t.Context(), "a/x.ltx"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("stat after the other one's delete: %v", err)
	}
	if s := one.String(); !strings.Contains(s, "://") {
		t.Errorf("String is %q, want a URL", s)
	}
}

func testBadArguments(t *testing.T, b Backend) {
	s := b.open(t)
	good := objstore.PutOptions{Timestamp: stamp}
	for _, key := range []string{"", "/a", "a/", "a//b", "../a", "a/../b", ".hidden", "a/.tmp", "a.", "a./b", "a b", "ä", "a*b", "a\x00b", strings.Repeat("k", 701)} {
		if _, err := s.Put(t.Context(), key, strings.NewReader("x"), good); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("put %q: %v, want fs.ErrInvalid", key, err)
		}
	}
	for name, opts := range map[string]objstore.PutOptions{
		"no timestamp": {},
		"meta name":    {Timestamp: stamp, Meta: map[string]string{"With-Hyphen": "x"}},
		"meta value":   {Timestamp: stamp, Meta: map[string]string{"a": "x\ny"}},
		"meta size":    {Timestamp: stamp, Meta: map[string]string{"a": strings.Repeat("x", 2000)}},
	} {
		if _, err := s.Put(t.Context(), "a/x.ltx", strings.NewReader("x"), opts); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%s: %v, want fs.ErrInvalid", name, err)
		}
	}
	if got := listKeys(t, s, "", ""); got != "" {
		t.Errorf("bad arguments stored %q", got)
	}
}
