package sftp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/sync/errgroup"

	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/objstore/dir"
	"github.com/ltxstream/ltxstream/testenv/storage"
)

func withoutExtensions(t *testing.T) {
	t.Helper()
	if err := sftp.SetSFTPExtensions(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sftp.SetSFTPExtensions(extHardlink, extPosixRename, "statvfs@openssh.com") })
}

func wantUnsupported(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, errors.ErrUnsupported) || errors.Is(err, objstore.ErrTransient) || !strings.Contains(err.Error(), extPosixRename) {
		t.Fatalf("%v, want errors.ErrUnsupported that names the extension", err)
	}
}

func wantBody(t *testing.T, s objstore.Store, key, want string) {
	t.Helper()
	if b, err := objstore.ReadAll(t.Context(), s, key); err != nil || string(b) != want {
		t.Fatalf("%s: %q, %v: want %q", key, b, err, want)
	}
}

// wantHidden fails where hidden files are left below root.
func wantHidden(t *testing.T, root string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if strings.HasPrefix(e.Name(), ".") {
			t.Errorf("left %s", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// raceIfAbsent lets two stores put the same keys: each has one winner.
func raceIfAbsent(t *testing.T, stores ...objstore.Store) {
	t.Helper()
	for round := range 10 {
		var wins atomic.Int64
		var g errgroup.Group
		for i := range 8 {
			g.Go(func() error {
				_, err := stores[i%len(stores)].Put(t.Context(), fmt.Sprintf("race/%d", round), strings.NewReader("x"), objstore.PutOptions{Timestamp: at, IfAbsent: true})
				if err == nil {
					wins.Add(1)
				} else if !errors.Is(err, fs.ErrExist) {
					return err
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil || wins.Load() != 1 {
			t.Fatalf("%d winners, %v: want 1", wins.Load(), err)
		}
	}
}

// calls are those of a store that the loss of the connection may meet, with the
// request at which it is lost.
var calls = []struct {
	name string
	typ  byte
	nth  int64
	call func(context.Context, objstore.Store) error
}{
	{"put, at create", typOpen, 1, putBig},
	{"put, at the first write", typWrite, 1, putBig},
	{"put, in the middle", typWrite, 60, putBig},
	{"put, at close", typClose, 1, putBig},
	{"put, at rename", typExtra, 1, putBig},
	{"put if absent, at write", typWrite, 1, putNew},
	{"get, at open", typOpen, 1, getBig},
	{"get, in the middle", typRead, 50, getBig},
	{"stat", typLstat, 1, func(ctx context.Context, s objstore.Store) error {
		_, err := s.Stat(ctx, "old/x.ltx")
		return err
	}},
	{"list, at the first page", typReaddir, 1, listAll},
	{"list, at the second page", typReaddir, 3, listAll},
	{"list, at the end", typReaddir, 4, listAll},
	{"delete", typLstat, 1, func(ctx context.Context, s objstore.Store) error { return s.Delete(ctx, "gone/x.ltx") }},
}

const (
	bigSize = 2<<20 + 5
	many    = 300 // objects of a directory, several pages
)

func big(seed byte) []byte {
	b := make([]byte, bigSize)
	for i := range b {
		b[i] = byte(i>>9) ^ byte(i) ^ seed
	}
	return b
}

func putBig(ctx context.Context, s objstore.Store) error {
	_, err := s.Put(ctx, "old/x.ltx", bytes.NewReader(big(2)), objstore.PutOptions{Timestamp: at})
	return err
}

func putNew(ctx context.Context, s objstore.Store) error {
	_, err := s.Put(ctx, "new/x.ltx", bytes.NewReader(big(2)), objstore.PutOptions{Timestamp: at, IfAbsent: true})
	return err
}

func getBig(ctx context.Context, s objstore.Store) error {
	b, err := objstore.ReadAll(ctx, s, "old/x.ltx")
	if err == nil && !bytes.Equal(b, big(1)) {
		err = fmt.Errorf("read %d bytes, other ones than were put", len(b))
	}
	return err
}

func listAll(ctx context.Context, s objstore.Store) error {
	n := 0
	for _, err := range s.List(ctx, "many/", "") {
		if err != nil {
			return err
		}
		n++
	}
	if n != many {
		return fmt.Errorf("listed %d, want %d", n, many)
	}
	return nil
}

// prepare fills a directory by way of package dir, and behind its back.
func prepare(t *testing.T) (root string) {
	t.Helper()
	root = t.TempDir()
	s, err := dir.New(t.Context(), dir.Config{Path: root})
	if err == nil {
		_, err = s.Put(t.Context(), "old/x.ltx", bytes.NewReader(big(1)), objstore.PutOptions{Timestamp: at})
	}
	if err == nil {
		err = os.Mkdir(filepath.Join(root, "many"), 0o755)
	}
	for i := range many {
		err = errors.Join(err, os.WriteFile(filepath.Join(root, "many", fmt.Sprintf("%04d.ltx", i)), nil, 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// TestLostConnection: without Retry a temporary error and nothing half-made,
// with it success.
func TestLostConnection(t *testing.T) {
	t.Parallel()
	s, t0 := startServer(t), t
	root, used := "", true // the calls that only read share one
	for _, c := range calls {
		t.Run(c.name, func(t *testing.T) {
			if used {
				root = prepare(t0)
			}
			used = strings.HasPrefix(c.name, "put")
			store := openClosed(t, s.config(root))
			s.on(c.typ, c.nth, cut)
			defer s.at.Store(nil)
			if err := c.call(t.Context(), store); !errors.Is(err, objstore.ErrTransient) || errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("%v, want objstore.ErrTransient", err)
			}
			if err := getBig(t.Context(), store); err != nil {
				t.Fatalf("after the failure: %v", err)
			}
			if _, err := store.Stat(t.Context(), "new/x.ltx"); !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("stat of what was not put: %v", err)
			}
			wantHidden(t, root)

			s.on(c.typ, c.nth, cut)
			tried := 0
			retry := objstore.Retry(store, objstore.RetryConfig{FirstPause: time.Millisecond, OnRetry: func(string, error) { tried++ }})
			if err := c.call(t.Context(), retry); err != nil || tried == 0 {
				t.Fatalf("with Retry: %v after %d more tries", err, tried)
			}
			wantHidden(t, root)
		})
	}
}

// TestSilentServer, not in parallel for its times: a server that answers no more is given up, and a call whose
// context ends returns at once, without harm to the others.
func TestSilentServer(t *testing.T) {
	s := startServer(t)
	root := prepare(t)
	cfg := s.config(root)
	retry := func(s objstore.Store) objstore.Store {
		return objstore.Retry(s, objstore.RetryConfig{FirstPause: time.Millisecond})
	}
	t.Run("keepalive", func(t *testing.T) {
		// Only the whole connection is silent: a proxy that passes nothing on.
		p := startStall(t, s.addr)
		cfg := cfg
		cfg.Addr, cfg.KeepAlive = p.addr, time.Second
		store := openClosed(t, cfg)
		if err := listAll(t.Context(), store); err != nil {
			t.Fatal(err)
		}
		for try, stays := 1, false; !stays; try++ {
			if try > 5 { // a slow machine's answers may come too late
				t.Fatalf("%d connections, each one was given up", p.conns.Load())
			}
			had := p.conns.Load()
			stays = p.answered(8) // idle, but answering: it stays
			if err := listAll(t.Context(), retry(store)); err != nil {
				t.Fatal(err)
			}
			stays = stays && p.conns.Load() == had
		}
		p.stall.Store(true)
		if err := listAll(t.Context(), store); !errors.Is(err, objstore.ErrTransient) || !errors.Is(err, errSilent) {
			t.Fatalf("%v, want a silent server", err)
		}
		p.stall.Store(false)
		if err := listAll(t.Context(), retry(store)); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("context", func(t *testing.T) {
		for _, c := range calls {
			if c.typ == typExtra {
				continue // the last steps are not interrupted
			}
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				s := startServer(t)
				store := openClosed(t, s.config(root))
				if _, err := store.Stat(t.Context(), "old/x.ltx"); err != nil { // connects
					t.Fatal(err)
				}
				s.on(c.typ, c.nth, swallow)
				cause := errors.New("enough")
				ctx, cancel := context.WithTimeoutCause(t.Context(), 100*time.Millisecond, cause)
				defer cancel()
				begun := time.Now()
				if err := c.call(ctx, store); !errors.Is(err, cause) || errors.Is(err, objstore.ErrTransient) {
					t.Fatalf("%v, want the cause", err)
				}
				if took := time.Since(begun); took > tidyLimit {
					t.Fatalf("returned after %s", took)
				}
			})
		}
	})
	t.Run("connecting", func(t *testing.T) {
		p := startStall(t, s.addr)
		p.stall.Store(true)
		cfg := cfg
		cfg.Addr, cfg.ConnectTimeout = p.addr, time.Second
		store := openClosed(t, cfg)
		if err := listAll(t.Context(), store); !errors.Is(err, objstore.ErrTransient) {
			t.Fatalf("%v, want objstore.ErrTransient", err)
		}
		p.stall.Store(false)
		if err := listAll(t.Context(), retry(store)); err != nil { // a second may be short
			t.Fatal(err)
		}
	})
}

// tidyLimit bounds a call on a server that swallows the removal too.
const tidyLimit = 30 * time.Second

// TestServerRestarts kills OpenSSH's processes under a store in use.
func TestServerRestarts(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("needs sshd")
	}
	d := storage.StartSSHD(t)
	root := prepare(t)
	store := openClosed(t, sshdConfig(d, root))
	retry := objstore.Retry(store, objstore.RetryConfig{FirstPause: 20 * time.Millisecond, Tries: 10})
	broken := func(n int, then func()) io.Reader { // a body that does something after n bytes
		return io.MultiReader(bytes.NewReader(big(3)[:n]), readerFunc(func([]byte) (int, error) { then(); return 0, io.EOF }), bytes.NewReader(big(3)[n:]))
	}
	t.Run("put", func(t *testing.T) {
		_, err := store.Put(t.Context(), "old/x.ltx", broken(bigSize/2, d.Drop), objstore.PutOptions{Timestamp: at})
		if !errors.Is(err, objstore.ErrTransient) {
			t.Fatalf("%v, want objstore.ErrTransient", err)
		}
		if err := getBig(t.Context(), store); err != nil {
			t.Fatal(err)
		}
		wantHidden(t, root)
	})
	t.Run("get", func(t *testing.T) {
		whole := slices.Concat(big(1), big(2), big(3), big(4)) // more than is under way at a time
		if err := os.WriteFile(filepath.Join(root, "large.ltx"), whole, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, s := range []objstore.Store{store, retry} {
			r, err := s.Get(t.Context(), "large.ltx", 0, -1)
			if err != nil {
				t.Fatal(err)
			}
			head := make([]byte, 1000)
			_, err = io.ReadFull(r, head)
			d.Drop()
			rest, errRest := io.ReadAll(r)
			if err := errors.Join(err, r.Close()); err != nil {
				t.Fatal(err)
			}
			if s == retry && (errRest != nil || !bytes.Equal(slices.Concat(head, rest), whole)) {
				t.Fatalf("with Retry: %d bytes, %v", len(rest), errRest)
			}
			if s != retry && (!errors.Is(errRest, objstore.ErrTransient) || errors.Is(errRest, io.EOF)) {
				t.Fatalf("%d bytes, %v: want objstore.ErrTransient", len(rest), errRest)
			}
		}
	})
	t.Run("stopped", func(t *testing.T) {
		d.Stop()
		if err := listAll(t.Context(), store); !errors.Is(err, objstore.ErrTransient) {
			t.Fatalf("%v, want objstore.ErrTransient", err)
		}
		var g errgroup.Group
		g.Go(func() error { return listAll(t.Context(), retry) })
		g.Go(func() error { return putNew(t.Context(), retry) })
		d.Start()
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestSharedWithDir: what one backend wrote the other reads, with metadata.
func TestSharedWithDir(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	root := t.TempDir()
	remote := openClosed(t, s.config(root))
	local, err := dir.New(t.Context(), dir.Config{Path: root})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name     string
		from, to objstore.Store
	}{{"remote", local, remote}, {"local", remote, local}} {
		meta := map[string]string{"checksum": c.name}
		if _, err := c.from.Put(t.Context(), "a/"+c.name, strings.NewReader(c.name), objstore.PutOptions{Timestamp: at, Meta: meta}); err != nil {
			t.Fatal(err)
		}
		wantBody(t, c.to, "a/"+c.name, c.name)
		info, err := c.to.Stat(t.Context(), "a/"+c.name)
		if err != nil || info.Meta["checksum"] != c.name || !info.Timestamp.Equal(at.Truncate(time.Second)) {
			t.Errorf("%s: %+v, %v", c.name, info, err)
		}
		if err := c.to.Delete(t.Context(), "a/"+c.name); err != nil {
			t.Fatal(err)
		}
		wantHidden(t, root)
	}
}

func TestDiskFull(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if err := syscall.Mount("tmpfs", root, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("no small disk to be had: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(root, 0) }) // after the server's end
	s := startServer(t)
	store := openClosed(t, s.config(root))
	if err := putNew(t.Context(), store); err == nil || errors.Is(err, objstore.ErrTransient) || !strings.Contains(err.Error(), "full disk") {
		t.Fatalf("%v, want a permanent error with a hint", err)
	}
	wantHidden(t, root)
}

// TestClosedStore: calls after Close, and those under way, end with an error.
func TestClosedStore(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	root := prepare(t)
	store := open(t, s.config(root))
	r, err := store.Get(t.Context(), "old/x.ltx", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(store.Close(), store.Close()); err != nil {
		t.Fatal(err)
	}
	_, errRead := io.Copy(io.Discard, r)
	for call, err := range map[string]error{"list": listAll(t.Context(), store), "read": errRead, "put": putNew(t.Context(), store)} {
		if !errors.Is(err, fs.ErrClosed) || errors.Is(err, objstore.ErrTransient) {
			t.Errorf("%s: %v, want fs.ErrClosed", call, err)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}
