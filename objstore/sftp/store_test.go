package sftp

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/objstore/objstoretest"
	"github.com/ltxstream/ltxstream/testenv/storage"
)

var at = time.Date(2021, 3, 4, 5, 6, 7, 89_000_000, time.UTC)

func open(t testing.TB, cfg Config) *Store {
	t.Helper()
	s, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// openClosed opens a store that the test closes.
func openClosed(t testing.TB, cfg Config) *Store {
	t.Helper()
	s := open(t, cfg)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func sshdConfig(s *storage.SSHD, path string) Config {
	return Config{Addr: s.Addr, User: s.User, Path: path, KnownHosts: []string{s.KnownHosts}, Identities: []string{s.Identity}}
}

func TestOpenSSH(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("needs sshd")
	}
	d := storage.StartSSHD(t)
	base := t.TempDir()
	objstoretest.Run(t, objstoretest.Backend{
		Open: func(t testing.TB, prefix string) objstore.Store {
			cfg := sshdConfig(d, filepath.Join(base, prefix))
			cfg.Create = true
			return open(t, cfg)
		},
		Missing: func(t testing.TB) objstore.Store { return open(t, sshdConfig(d, filepath.Join(base, "no", "disk"))) },
		Denied: func(t testing.TB) objstore.Store {
			cfg := sshdConfig(d, base)
			cfg.Identities = []string{filepath.Join(filepath.Dir(d.Identity), "host_rsa")} // a key, but not ours
			return open(t, cfg)
		},
		Coarse:         time.Second,
		ListTimestamps: true,
		OneTime:        true,
		Quick:          true, // encrypting 64 MiB twice, under the race detector
	})
}

func TestInProcess(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	base := t.TempDir()
	objstoretest.Run(t, objstoretest.Backend{
		Open: func(t testing.TB, prefix string) objstore.Store {
			if err := os.MkdirAll(filepath.Join(base, prefix), 0o755); err != nil {
				t.Fatal(err)
			}
			return open(t, s.config(filepath.Join(base, prefix)))
		},
		Missing: func(t testing.TB) objstore.Store { return open(t, s.config(filepath.Join(base, "no", "disk"))) },
		Denied: func(t testing.TB) objstore.Store {
			cfg := s.config(base)
			cfg.Password = "guess"
			return open(t, cfg)
		},
		Requests: s.requests.Load,
		Budget: objstoretest.Budget{
			SmallPut:       8,     // look, create, write, time, close, look twice, rename
			Get:            4 + 1, // open, size, read, close; and the close of the Get before, which Close does not wait for
			Stat:           3 + 1, // look, metadata, look again; the same
			DeletePerBatch: 6,     // look, remove, metadata, directories
			ListPerPage:    5,     // open, two reads, close, the question whether it was all
		},
		Coarse:         time.Second,
		ListTimestamps: true,
		OneTime:        true,
		Quick:          true,
	})
}

// TestWithoutExtensions: a server that knows none of OpenSSH's. Not in parallel:
// they are those of all servers of the process.
func TestWithoutExtensions(t *testing.T) {
	withoutExtensions(t)
	s := startServer(t)
	base := t.TempDir()
	store := openClosed(t, s.config(base))
	put := func(body string, ifAbsent bool) error {
		_, err := store.Put(t.Context(), "a/x.ltx", strings.NewReader(body), objstore.PutOptions{Timestamp: at, IfAbsent: ifAbsent})
		return err
	}
	if err := put("one", false); err != nil {
		t.Fatal(err)
	}
	wantUnsupported(t, put("two", false))
	wantBody(t, store, "a/x.ltx", "one")
	wantHidden(t, base)
	other := openClosed(t, s.config(base))
	raceIfAbsent(t, store, other)
	wantHidden(t, base)

	// Another Put comes when the first has looked and is about to rename.
	putNew := func(s objstore.Store, body string) error {
		_, err := s.Put(t.Context(), "a/new.ltx", strings.NewReader(body), objstore.PutOptions{Timestamp: at, IfAbsent: true})
		return err
	}
	second := make(chan error, 1)
	var once sync.Once
	hook := func(typ byte) verdict {
		if typ == typRename {
			once.Do(func() {
				go func() { second <- putNew(other, "second") }()
				for before := s.requests.Load(); s.requests.Load() < before+20 && len(second) == 0; {
					time.Sleep(time.Millisecond) // until it has met the claim, or is through
				}
			})
		}
		return pass
	}
	s.at.Store(&hook)
	if err := putNew(store, "first"); err != nil {
		t.Fatal(err)
	}
	if err := <-second; !errors.Is(err, fs.ErrExist) {
		t.Fatalf("the second: %v, want fs.ErrExist", err)
	}
	wantBody(t, store, "a/new.ltx", "first")
	wantHidden(t, base)
}
