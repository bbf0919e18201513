package natsobj

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/faults"
)

func transient(err error) bool { return errors.Is(err, objstore.ErrTransient) }

// behindProxy returns a store whose connection can be broken, and one beside.
func behindProxy(t *testing.T, edit ...func(*Config)) (broken, whole *Store, p *faults.Proxy) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a server")
	}
	srv := testenv.Node(t)
	js := srv.JetStream()
	bucket(t, js, "archive", 1)
	p = testenv.Proxy(t, srv.URL())
	through := testenv.Connect(t, "nats://"+p.Addr(), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	edit = append([]func(*Config){patience(300 * time.Millisecond)}, edit...)
	return open(t, testenv.JetStream(t, through), edit...), open(t, js), p
}

// atEOF calls end when all was read.
type atEOF struct {
	io.Reader
	end func()
}

func (r *atEOF) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err == io.EOF && r.end != nil {
		r.end()
		r.end = nil
	}
	return n, err
}

// tries is how often a call may fail because the machine was slower than the
// patience of the store, which each lost request costs.
const tries = 5

// TestLostAcknowledgementOfTheMeta: it was stored, and Put says so.
func TestLostAcknowledgementOfTheMeta(t *testing.T) {
	s, whole, p := behindProxy(t, patience(time.Second))
	body := content(chunkSize) // it is acknowledged when the end is seen
	putLost := func(first func(), absent bool) (err error) {
		for range tries {
			first()
			r := &atEOF{bytes.NewReader(body), func() { p.CutAfter(faults.Down, 1) }}
			if _, err = s.Put(t.Context(), "a.ltx", r, objstore.PutOptions{Timestamp: stamp, IfAbsent: absent}); !transient(err) {
				return err
			}
		}
		return err
	}
	gone := func() {
		if err := whole.Delete(t.Context(), "a.ltx"); err != nil {
			t.Fatal(err)
		}
	}
	for _, absent := range []bool{true, false} {
		if err := putLost(gone, absent); err != nil {
			t.Fatalf("put, if absent %v: %v", absent, err)
		}
		if got := get(t, whole, "a.ltx", 0, -1); !bytes.Equal(got, body) {
			t.Error("other content")
		}
	}
	// That somebody else's object was met got lost: the same.
	if err := putLost(func() {}, false); err != nil {
		t.Fatalf("put over another: %v", err)
	}
	if err := putLost(func() {}, true); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("put if absent: %v, want fs.ErrExist", err)
	}
	if _, err := whole.sweep(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	wantChunks(t, whole, 1)
}

// TestLostMeta: it never arrived. Put fails and keeps its chunks, for all that
// it knows the meta may still come; a Sweep takes them.
func TestLostMeta(t *testing.T) {
	s, whole, p := behindProxy(t, patience(time.Second))
	var err error
	for range tries {
		r := &atEOF{bytes.NewReader(content(chunkSize)), func() { p.CutAfter(faults.Up, 100) }}
		_, err = s.Put(t.Context(), "a.ltx", r, objstore.PutOptions{Timestamp: stamp})
		if r.end == nil || !transient(err) {
			break // else it was the chunk that failed
		}
	}
	if !transient(err) || !errors.Is(err, errUnsure) {
		t.Fatalf("put: %v, want a temporary error", err)
	}
	if got := keys(t, whole, ""); got != "" {
		t.Fatalf("listed %q", got)
	}
	wantChunks(t, whole, 1)
	if _, err := whole.sweep(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	wantChunks(t, whole, 0)
}

// TestCancelledDuringTheMeta: the object is there whole, or not at all.
func TestCancelledDuringTheMeta(t *testing.T) {
	s, whole, p := behindProxy(t, patience(time.Second))
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	enough := errors.New("enough")
	r := &atEOF{bytes.NewReader(content(chunkSize)), func() {
		p.Set(faults.Fault{Latency: 50 * time.Millisecond})
		time.AfterFunc(25*time.Millisecond, func() { cancel(enough) })
	}}
	_, err := s.Put(ctx, "a.ltx", r, objstore.PutOptions{Timestamp: stamp})
	p.Set(faults.Fault{})
	o, lookErr := whole.look(t.Context(), "a.ltx")
	if lookErr != nil || o.live() != (err == nil) {
		t.Fatalf("put: %v, but the object is there: %v, %v", err, o.live(), lookErr)
	}
	if o.live() {
		get(t, whole, "a.ltx", 0, -1)
	}
}

// TestBrokenPutIsCleanedUp: once the connection is back.
func TestBrokenPutIsCleanedUp(t *testing.T) {
	s, whole, p := behindProxy(t, patience(2*time.Second))
	for range tries {
		if _, err := whole.sweep(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		p.CutAfter(faults.Up, 10*chunkSize)
		_, err := s.Put(t.Context(), "a.ltx", bytes.NewReader(content(24*chunkSize)), objstore.PutOptions{Timestamp: stamp})
		if !transient(err) {
			t.Fatalf("put: %v, want a temporary error", err)
		}
		if len(stored(t, whole, whole.allChunks())) == 0 {
			return
		}
	}
	wantChunks(t, whole, 0)
}

// TestBrokenConnections: each call fails as temporary and goes on with Retry.
func TestBrokenConnections(t *testing.T) {
	s, whole, p := behindProxy(t)
	retried := objstore.Retry(s, objstore.RetryConfig{Tries: 300, FirstPause: 20 * time.Millisecond, MaxPause: 100 * time.Millisecond})
	body := content(24 * chunkSize)
	opts := objstore.PutOptions{Timestamp: stamp}
	for _, cut := range []struct {
		d faults.Direction
		n int64
	}{{faults.Up, 1000}, {faults.Up, 10 * chunkSize}, {faults.Down, 50}, {faults.Down, 1000}} {
		p.CutAfter(cut.d, cut.n)
		_, err := s.Put(t.Context(), "a.ltx", bytes.NewReader(body), opts)
		if !transient(err) {
			t.Fatalf("put cut after %d: %v, want a temporary error", cut.n, err)
		}
		if got := keys(t, whole, ""); got != "" {
			t.Fatalf("cut after %d: listed %q", cut.n, got)
		}
	}
	p.CutAfter(faults.Up, 9*chunkSize)
	put(t, retried, "a.ltx", body)
	for _, n := range []int64{10, 15 * chunkSize} {
		p.CutAfter(faults.Down, n)
		if _, err := objstore.ReadAll(t.Context(), s, "a.ltx"); !transient(err) {
			t.Fatalf("get cut after %d: %v, want a temporary error", n, err)
		}
		p.CutAfter(faults.Down, n)
		if got := get(t, retried, "a.ltx", 0, -1); !bytes.Equal(got, body) {
			t.Errorf("get cut after %d: other content", n)
		}
	}
	all := level("db/", 600)
	putMany(t, whole, all)
	nameAll(t, whole)
	for _, n := range []int64{10, 250_000} {
		var err error
		p.CutAfter(faults.Down, n)
		for _, err = range s.List(t.Context(), "db/", "") {
		}
		if !transient(err) {
			t.Errorf("list cut after %d: %v, want a temporary error", n, err)
		}
		p.CutAfter(faults.Down, n)
		if got := keys(t, retried, "db/"); got != strings.Join(all, " ") {
			t.Errorf("list cut after %d: other keys", n)
		}
	}
	p.CutAfter(faults.Down, 100)
	if err := retried.Delete(t.Context(), all[:20]...); err != nil {
		t.Errorf("delete: %v", err)
	}
	if got := keys(t, whole, "db/"); got != strings.Join(all[20:], " ") {
		t.Error("the wrong ones were deleted")
	}
	if _, err := whole.sweep(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	wantChunks(t, whole, 1)
}

// TestSilence: a network that swallows all. Every call ends by its own deadline,
// and with the caller's cause when that comes first.
func TestSilence(t *testing.T) {
	s, whole, p := behindProxy(t, patience(200*time.Millisecond))
	body := content(30 * chunkSize)
	put(t, whole, "a.ltx", body)
	var r io.ReadCloser
	testenv.Until(t, time.Minute, "the first bytes", func() (err error) {
		if r, err = s.Get(t.Context(), "a.ltx", 0, -1); err != nil {
			return err
		}
		if _, err = io.ReadFull(r, make([]byte, 10)); err != nil {
			_ = r.Close()
		}
		return err
	})
	defer r.Close()
	p.Set(faults.Fault{BlackHole: true})
	calls := map[string]func(context.Context) error{
		"stat": func(ctx context.Context) error { _, err := s.Stat(ctx, "a.ltx"); return err },
		"get":  func(ctx context.Context) error { _, err := s.Get(ctx, "a.ltx", 0, -1); return err },
		"put": func(ctx context.Context) error {
			_, err := s.Put(ctx, "b.ltx", bytes.NewReader(body), objstore.PutOptions{Timestamp: stamp})
			return err
		},
		"delete": func(ctx context.Context) error { return s.Delete(ctx, "a.ltx") },
		"list": func(ctx context.Context) (err error) {
			for _, err = range s.List(ctx, "", "") {
			}
			return err
		},
	}
	for name, call := range calls {
		fastest := time.Hour
		for try := 0; try < tries && fastest > 3*time.Second; try++ {
			start := time.Now()
			if err := call(t.Context()); !transient(err) {
				t.Errorf("%s: %v, want a temporary error", name, err)
			}
			cause := errors.New("enough")
			ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, cause)
			if err := call(ctx); !errors.Is(err, cause) || transient(err) {
				t.Errorf("%s: %v, want the cause", name, err)
			}
			cancel()
			fastest = min(fastest, time.Since(start))
		}
		if fastest > 3*time.Second {
			t.Errorf("%s took %s", name, fastest)
		}
	}
	if _, err := io.ReadAll(r); !transient(err) {
		t.Errorf("read on: %v, want a temporary error", err)
	}
	p.Set(faults.Fault{})
}

func TestClosedConnection(t *testing.T) {
	s, _, _ := behindProxy(t)
	s.nc.Close()
	if _, err := s.Stat(t.Context(), "a.ltx"); err == nil || transient(err) {
		t.Errorf("stat: %v, want an error for good", err)
	}
}
