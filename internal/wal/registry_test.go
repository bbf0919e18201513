//go:build cgo

package wal

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// holdLocks opens a connection of this process on the database and begins a
// write transaction: SHARED on the file, DMS and WRITE on the -shm.
func holdLocks(t *testing.T, path string) *sql.Conn {
	t.Helper()
	db, err := sql.Open("sqlite3", "file:"+path)
	must(t, err)
	t.Cleanup(func() { db.Close() })
	conn, err := db.Conn(context.Background())
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	_, err = conn.ExecContext(t.Context(), "BEGIN IMMEDIATE")
	must(t, err)
	return conn
}

// locksHeld tells, by asking from another process, whether this one still has
// its SQLite locks on the -shm and on the database file.
func locksHeld(f *foreign) (shm, db bool) {
	_, err := f.try("BEGIN IMMEDIATE")
	if shm = err != nil; !shm {
		f.exec("ROLLBACK")
	}
	got, err := f.try("PRAGMA journal_mode=DELETE")
	if db = err != nil || got != "delete"; !db {
		f.exec("PRAGMA journal_mode=WAL")
	}
	return shm, db
}

func TestRegistryKeepsSQLitesLocks(t *testing.T) {
	path, f := newDatabase(t, "go", 4096)
	holdLocks(t, path)
	for range 100 {
		d, err := Open(path)
		must(t, err)
		must(t, d.Pin())
		must(t, d.Close())
	}
	if shm, db := locksHeld(f); !shm || !db {
		t.Fatalf("locks lost by Open and Close: shm held %v, database held %v", shm, db)
	}
	registry.Lock()
	id, err := Identify(path)
	n := len(registry.idle[id])
	registry.Unlock()
	if err != nil || n != 1 {
		t.Fatalf("%d idle descriptors, want 1 (%v)", n, err)
	}
}

func TestRegistryKeepsDescriptorsOfADroppedDB(t *testing.T) {
	path, f := newDatabase(t, "go", 4096)
	holdLocks(t, path)
	func() {
		for range 5 {
			_, err := Open(path) // never closed
			must(t, err)
		}
	}()
	for range 5 {
		runtime.GC()
	}
	if shm, db := locksHeld(f); !shm || !db {
		t.Fatalf("locks lost to the garbage collector: shm held %v, database held %v", shm, db)
	}
}

// TestClosingAPlainDescriptorDropsLocks is the control of the two above: what
// they look for does happen, and they would see it.
func TestClosingAPlainDescriptorDropsLocks(t *testing.T) {
	path, f := newDatabase(t, "go", 4096)
	holdLocks(t, path)
	if shm, db := locksHeld(f); !shm || !db {
		t.Fatalf("shm held %v, database held %v", shm, db)
	}
	for _, p := range []string{path, path + "-shm"} {
		g, err := os.Open(p)
		must(t, err)
		must(t, g.Close())
	}
	if shm, db := locksHeld(f); shm || db {
		t.Fatalf("closing a descriptor kept the locks: shm %v, database %v", shm, db)
	}
}

func TestCloseIdle(t *testing.T) {
	path, _ := newDatabase(t, "go", 4096)
	d, err := Open(path)
	must(t, err)
	db, shm := d.IDs()
	must(t, d.Close())
	must(t, errors.Join(CloseIdle(db), CloseIdle(shm), CloseIdle(db)))
	if f := takeIdle(db); f != nil {
		t.Fatal("a descriptor was left")
	}
}

func TestMoved(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"database replaced": func(p string) error {
			return errors.Join(os.WriteFile(p+".new", nil, 0o644), os.Rename(p+".new", p))
		},
		"wal removed": func(p string) error { return os.Remove(p + "-wal") },
		"shm removed": func(p string) error { return os.Remove(p + "-shm") },
	} {
		t.Run(name, func(t *testing.T) {
			path, _ := newDatabase(t, "go", 4096)
			d := openDB(t, path)
			if d.Moved() {
				t.Fatal("moved at rest")
			}
			must(t, change(path))
			if !d.Moved() {
				t.Fatal("not seen")
			}
		})
	}
}

// TestSymlink: SQLite names the WAL after the file that a link leads to.
func TestSymlink(t *testing.T) {
	path, f := newDatabase(t, "go", 4096)
	f.insert(3, 100)
	link := filepath.Join(t.TempDir(), "link.db")
	must(t, os.Symlink(path, link))
	d := openDB(t, link)
	if header(t, d).MaxFrame == 0 || d.Moved() {
		t.Fatalf("%+v, moved %v", header(t, d), d.Moved())
	}
	other := filepath.Join(t.TempDir(), "other.db")
	must(t, os.WriteFile(other, nil, 0o644))
	must(t, os.Remove(link))
	must(t, os.Symlink(other, link))
	if !d.Moved() {
		t.Fatal("the link leads elsewhere, not seen")
	}
}

func TestOpenWithoutAKeeper(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "absent.db")); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("absent: %v", err)
	}
	path, f := newDatabase(t, "go", 4096)
	f.close() // removes -wal and -shm
	if _, err := Open(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("no -shm: %v", err)
	}
	must(t, os.WriteFile(path+"-shm", make([]byte, 3), 0o644))
	if _, err := Open(path); !errors.Is(err, ErrFormat) {
		t.Fatalf("short -shm: %v", err)
	}
}

func TestFileHeaderOfAnEmptyWAL(t *testing.T) {
	path, f := newDatabase(t, "go", 4096)
	d := openDB(t, path)
	if _, _, err := d.FileHeader(); err != nil {
		t.Fatal(err)
	}
	f.exec("PRAGMA wal_checkpoint(TRUNCATE)")
	if _, _, err := d.FileHeader(); !errors.Is(err, ErrFormat) {
		t.Fatalf("empty wal: %v", err)
	}
}
