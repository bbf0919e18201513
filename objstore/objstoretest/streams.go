package objstoretest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/objstore"
)

// sameStream fails unless r yields what generator(seed, n) does.
func sameStream(t *testing.T, r io.Reader, seed uint64, n int64) {
	t.Helper()
	want := generator(seed, n)
	have, need := make([]byte, 256<<10), make([]byte, 256<<10)
	for done := int64(0); ; {
		k, err := io.ReadFull(r, have)
		if _, errWant := io.ReadFull(want, need[:k]); errWant != nil && k > 0 || !bytes.Equal(have[:k], need[:k]) {
			t.Fatalf("other bytes behind offset %d", done)
		}
		done += int64(k)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			if done != n {
				t.Fatalf("%d bytes, want %d", done, n)
			}
			return
		}
		if err != nil {
			t.Fatalf("after %d bytes: %v", done, err)
		}
	}
}

func testStreamed(t *testing.T, b Backend) {
	size := int64(64<<20 + 17)
	if b.Quick {
		size = 8<<20 + 17
	}
	stream(t, b, size, []int64{0, 1, size / 2, size - 1000})
}

// testHuge is the 5 GB object: more than one request may hold anywhere.
func testHuge(t *testing.T, b Backend) {
	const size = 5<<30 + 12345
	var peak atomic.Uint64
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		var m runtime.MemStats
		for ctx.Err() == nil {
			runtime.ReadMemStats(&m)
			peak.Store(max(peak.Load(), m.HeapAlloc))
			time.Sleep(100 * time.Millisecond)
		}
	}()
	stream(t, b, size, []int64{0, 4<<30 + 5, size - 1000})
	stop()
	<-done
	t.Logf("heap peak %d MiB", peak.Load()>>20)
	if peak.Load() > 300<<20 {
		t.Errorf("heap peak %d MiB, want at most 300", peak.Load()>>20)
	}
}

// stream puts an object of unknown length and reads it back, whole and from
// the given offsets on.
func stream(t *testing.T, b Backend, size int64, offsets []int64) {
	s := b.open(t)
	info, err := s.Put(t.Context(), "big/x.ltx", generator(9, size), objstore.PutOptions{Timestamp: stamp, IfAbsent: true, Meta: map[string]string{"checksum": "0123456789abcdef"}})
	if err != nil {
		t.Fatal(err)
	}
	if info.Size != size {
		t.Fatalf("put says %d bytes, want %d", info.Size, size)
	}
	got, err := s.Stat(t.Context(), "big/x.ltx")
	if err != nil {
		t.Fatal(err)
	}
	if got.Size != size || got.Meta["checksum"] != "0123456789abcdef" {
		t.Fatalf("stat says %+v", got)
	}
	b.checkStamp(t, got)
	r, err := s.Get(t.Context(), "big/x.ltx", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	sameStream(t, r, 9, size)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if size > 1<<30 {
		return
	}
	body := content(9, size)
	for _, offset := range offsets {
		if have := get(t, s, "big/x.ltx", offset, 900); !bytes.Equal(have, body[offset:offset+900]) {
			t.Fatalf("range at %d differs", offset)
		}
	}
	// left in the middle: Close must not fetch the rest
	r, err = s.Get(t.Context(), "big/x.ltx", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	r.Close()
}

// abortSizes are lengths after which an upload breaks off: within the first
// piece, at its end, and in later ones.
func (b Backend) abortSizes() []int64 {
	part := max(b.PartSize, 1<<20)
	return []int64{0, 1, 100_000, part, part + 1, 2*part + 5000, 5 * part}
}

// untouched fails if an aborted put left anything that can be seen.
func untouched(t *testing.T, s objstore.Store, was []byte) {
	t.Helper()
	if _, err := s.Stat(t.Context(), "new/x.ltx"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("stat of what was aborted: %v, want fs.ErrNotExist", err)
	}
	wantContent(t, s, "old/x.ltx", was)
	if got := listKeys(t, s, "", ""); got != "old/x.ltx" {
		t.Fatalf("list %q, want old/x.ltx alone", got)
	}
}

func testAbortedByReader(t *testing.T, b Backend) {
	s := b.open(t)
	was := content(1, 2000)
	put(t, s, "old/x.ltx", was)
	broken := errors.New("the source broke")
	// A source that the network cut short ends with this, and never with success.
	body := io.MultiReader(generator(2, 1000), failing{io.ErrUnexpectedEOF})
	if _, err := s.Put(t.Context(), "new/x.ltx", body, objstore.PutOptions{Timestamp: stamp}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("put from a truncated source: %v, want io.ErrUnexpectedEOF", err)
	}
	untouched(t, s, was)
	for _, n := range b.abortSizes() {
		for _, key := range []string{"new/x.ltx", "old/x.ltx"} {
			body := io.MultiReader(generator(2, n), failing{broken})
			_, err := s.Put(t.Context(), key, body, objstore.PutOptions{Timestamp: stamp})
			if !errors.Is(err, broken) || errors.Is(err, objstore.ErrTransient) {
				t.Fatalf("put %s broken after %d bytes: %v, want the reader's error", key, n, err)
			}
			untouched(t, s, was)
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// cancelling ends a context after n bytes and then has nothing to give.
type cancelling struct {
	ctx  context.Context
	left io.Reader
	end  func()
}

func (c cancelling) Read(p []byte) (int, error) {
	n, err := c.left.Read(p)
	if err == io.EOF {
		c.end()
		<-c.ctx.Done()
		time.Sleep(time.Millisecond) // the store sees it while it waits for us
		return 0, context.Cause(c.ctx)
	}
	return n, err
}

func testAbortedByContext(t *testing.T, b Backend) {
	s := b.open(t)
	was := content(1, 2000)
	put(t, s, "old/x.ltx", was)
	cause := errors.New("enough")
	for _, n := range b.abortSizes() {
		for _, key := range []string{"new/x.ltx", "old/x.ltx"} {
			ctx, cancel := context.WithCancelCause(t.Context())
			body := cancelling{ctx: ctx, left: generator(2, n), end: func() { cancel(cause) }}
			_, err := s.Put(ctx, key, body, objstore.PutOptions{Timestamp: stamp})
			cancel(nil)
			if !errors.Is(err, cause) || errors.Is(err, objstore.ErrTransient) {
				t.Fatalf("put %s cancelled after %d bytes: %v, want the cause", key, n, err)
			}
			untouched(t, s, was)
		}
	}
}

func testCancelledBefore(t *testing.T, b Backend) {
	s := b.open(t)
	was := content(1, 2000)
	put(t, s, "old/x.ltx", was)
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	check := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, cause) || errors.Is(err, objstore.ErrTransient) || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, want the cause", what, err)
		}
	}
	_, err := s.Put(ctx, "new/x.ltx", strings.NewReader("x"), objstore.PutOptions{Timestamp: stamp})
	check("put", err)
	_, err = s.Get(ctx, "old/x.ltx", 0, -1)
	check("get", err)
	_, err = s.Stat(ctx, "old/x.ltx")
	check("stat", err)
	check("delete", s.Delete(ctx, "old/x.ltx"))
	err = nil
	for _, err = range s.List(ctx, "", "") {
	}
	check("list", err)
	untouched(t, s, was)
}

func testCancelledBody(t *testing.T, b Backend) {
	s := b.open(t)
	size := int64(32 << 20)
	if b.Quick {
		size = 8 << 20
	}
	if _, err := s.Put(t.Context(), "a/x.ltx", generator(1, size), objstore.PutOptions{Timestamp: stamp}); err != nil {
		t.Fatal(err)
	}
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	r, err := s.Get(ctx, "a/x.ltx", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.ReadFull(r, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	cancel(cause)
	n, err := io.Copy(io.Discard, r)
	if !errors.Is(err, cause) || errors.Is(err, objstore.ErrTransient) {
		t.Fatalf("read on after the end of the context: %d bytes, %v, want the cause", n, err)
	}
}

func testCancelledList(t *testing.T, b Backend) {
	s := b.open(t)
	fill(t, s, "a/", 20)
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	n := 0
	var last error
	for _, err := range s.List(ctx, "a/", "") {
		if err != nil {
			last = err
			break
		}
		if n++; n == 3 {
			cancel(cause)
		}
	}
	if !errors.Is(last, cause) {
		t.Fatalf("listing went on for %d objects, %v: want the cause", n, last)
	}
}
