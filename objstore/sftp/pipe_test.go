package sftp

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pkg/sftp"

	"github.com/ltxstream/ltxstream/objstore"
)

// closing is the way to a server that is closed at the nth request of a type,
// for the sender first: it gets io.EOF, as from a channel of SSH.
type closing struct {
	io.WriteCloser
	typ  byte
	left atomic.Int64
}

func (c *closing) Write(p []byte) (int, error) {
	if len(p) > 4 && p[4] == c.typ && c.left.Add(-1) < 0 || c.left.Load() < 0 {
		return 0, io.EOF
	}
	return c.WriteCloser.Write(p)
}

// overPipe returns the files of a server behind a pipe that closes.
func overPipe(t *testing.T, typ byte, nth int64) files {
	t.Helper()
	there, here := net.Pipe()
	srv, err := sftp.NewServer(there)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve() })
	way := &closing{WriteCloser: here, typ: typ}
	way.left.Store(nth - 1)
	client, err := sftp.NewClientPipe(here, way)
	if err != nil {
		t.Fatal(err)
	}
	p := newPool(Config{Addr: "pipe"})
	l := &link{pool: p, conn: &heard{Conn: here}, sftp: client, done: make(chan struct{})}
	p.mu.cur = &dialed{done: make(chan struct{}), link: l}
	close(p.mu.cur.done)
	t.Cleanup(func() {
		p.close()
		_ = there.Close()
		wg.Wait()
	})
	return files{p}
}

// TestLossIsNoEnd: the io.EOF of a sender whose connection is lost must not pass
// for the end of a directory or of a file. pkg/sftp wraps it; should it cease
// to, listings would be cut short without an error.
func TestLossIsNoEnd(t *testing.T) {
	t.Parallel()
	root := prepare(t)
	entries, err := overPipe(t, typReaddir, 2).ReadDir(t.Context(), filepath.Join(root, "many"))
	if !errors.Is(err, objstore.ErrTransient) {
		t.Errorf("list: %d entries, %v: want objstore.ErrTransient", len(entries), err)
	}
	r, err := overPipe(t, typRead, 1).Open(t.Context(), filepath.Join(root, "old", "x.ltx"), 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, r)
	if !errors.Is(err, objstore.ErrTransient) {
		t.Errorf("get: %d bytes, %v: want objstore.ErrTransient", n, err)
	}
	_ = r.Close()
}

// TestFileShrinks: that is no fault of the connection.
func TestFileShrinks(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	root := prepare(t)
	f := files{openClosed(t, s.config(root)).pool}
	name := filepath.Join(root, "old", "x.ltx")
	r, err := f.Open(t.Context(), name, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := os.Truncate(name, bigSize/2); err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, r); n != bigSize/2 || !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, objstore.ErrTransient) {
		t.Errorf("%d bytes, %v: want %d and io.ErrUnexpectedEOF", n, err, bigSize/2)
	}
	if _, err := f.Lstat(t.Context(), root+"/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// TestLateAnswer: what is opened for a call that has ended is closed.
func TestLateAnswer(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := openClosed(t, s.config("/")).pool
	l, err := p.get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	begun, end, late := make(chan struct{}), make(chan struct{}), make(chan int, 1)
	go func() { <-begun; cancel() }()
	_, err = run(ctx, l, func() (int, error) { close(begun); <-end; return 7, nil }, func(v int) { late <- v })
	close(end)
	if !errors.Is(err, context.Canceled) || <-late != 7 {
		t.Fatal(err)
	}
}
