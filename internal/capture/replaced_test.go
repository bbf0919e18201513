package capture

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

// replacements are the ways in which the file under a name becomes another one.
// Each leaves the application closed and returns with other at its path.
var replacements = map[string]struct {
	do     func(t *testing.T, a *app, other string)
	inUse  bool // can be done while somebody has the database open
	resize bool // the page size may change
}{
	"rename": {inUse: true, resize: true, do: func(t *testing.T, a *app, other string) {
		a.replace(func() { must(t, os.Rename(other, a.path)) })
	}},
	"remove and create": {inUse: true, resize: true, do: func(t *testing.T, a *app, other string) {
		b, err := os.ReadFile(other)
		must(t, err)
		a.replace(func() {
			must(t, os.Remove(a.path), os.RemoveAll(a.path+"-wal"), os.RemoveAll(a.path+"-shm"), copySlowly(a.path, b))
		})
	}},
	"copy over": {resize: true, do: func(t *testing.T, a *app, other string) {
		b, err := os.ReadFile(other)
		must(t, err, os.WriteFile(a.path, b, 0o644))
	}},
	"backup api": {inUse: true, do: func(t *testing.T, a *app, other string) {
		a.open()
		src := openRaw(t, other)
		must(t, raw(t, a.db, func(dst *sqlite3.SQLiteConn) error {
			return raw(t, src, func(src *sqlite3.SQLiteConn) error {
				b, err := dst.Backup("main", src, "main")
				if err != nil {
					return err
				}
				if _, err := b.Step(-1); err != nil {
					return err
				}
				return b.Finish()
			})
		}))
		a.close()
	}},
	"vacuum": {inUse: true, do: func(t *testing.T, a *app, _ string) {
		a.open()
		a.exec("DELETE FROM a WHERE id % 3 = 0")
		a.exec("VACUUM")
		a.close()
	}},
	"vacuum into and rename": {inUse: true, do: func(t *testing.T, a *app, _ string) {
		a.open()
		a.exec("DELETE FROM a WHERE id % 3 = 0")
		a.exec("VACUUM INTO ?", a.path+".new")
		a.close()
		a.replace(func() { must(t, os.Rename(a.path+".new", a.path)) })
	}},
}

// copySlowly writes a file as a copy over a network does: there are moments in
// which it is empty, and in which it is half there.
func copySlowly(path string, b []byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	for _, part := range [][]byte{b[:len(b)/2], b[len(b)/2:]} {
		<-time.After(30 * time.Millisecond)
		if _, err := f.Write(part); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return f.Close()
}

func raw(t *testing.T, db *sql.DB, f func(*sqlite3.SQLiteConn) error) error {
	c, err := db.Conn(t.Context())
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Raw(func(dc any) error { return f(dc.(*sqlite3.SQLiteConn)) })
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// other makes another database, closed, with the same table.
func other(t *testing.T, pageSize int) string {
	t.Helper()
	o := newApp(t, sqlconn.Options{PageSize: pageSize}, 99)
	o.exec("CREATE TABLE b (x)")
	o.exec("INSERT INTO b VALUES (zeroblob(50000))")
	o.close()
	return o.path
}

// awaitEmpty waits until the WAL is empty, as it would be at once without us.
func (a *app) awaitEmpty() {
	a.t.Helper()
	await(a.t, "the wal is emptied", func() bool {
		fi, err := os.Stat(a.path + "-wal")
		return err != nil || fi.Size() == 0
	})
}

// replace does what replaces the file of the closed application. While it is
// captured there are two moments to wait for: until the WAL has been emptied,
// and until the other file has been noticed.
func (a *app) replace(do func()) {
	a.t.Helper()
	if a.captured == nil {
		do()
		return
	}
	a.awaitEmpty()
	comparisons := func() uint64 {
		rep, err := a.captured.r.Last()
		must(a.t, err)
		return rep.Stats.Comparisons
	}
	before := comparisons()
	do()
	await(a.t, "the replacement is noticed", func() bool { return comparisons() > before })
}

func TestFileIsReplaced(t *testing.T) {
	for name, how := range replacements {
		for _, live := range []bool{true, false} {
			for _, pageSize := range []int{4096, 1024} {
				if live && !how.inUse || pageSize != 4096 && !how.resize {
					continue
				}
				t.Run(fmt.Sprintf("%s live=%t page size %d", name, live, pageSize), func(t *testing.T) {
					t.Parallel()
					a := newApp(t, sqlconn.Options{}, 1)
					c := captureIn(t, captureSpec{Path: a.path})
					a.update(30)
					c.caughtUp()
					a.close()
					if live {
						a.captured = c
					} else {
						c.stop()
					}
					how.do(t, a, other(t, pageSize))
					want := imageOf(t, a.path)
					a.open()
					a.update(10)
					if live {
						c.caughtUp()
						a.update(10)
						c.caughtUp()
						c.stop()
					}
					r := run(t, Config{Path: a.path}, &shadow{})
					r.settle()
					r.equal(a.path)
					if wantFulls := 1 + btoi(pageSize != 4096); r.shadow.fulls != wantFulls {
						t.Errorf("%d full files, want %d", r.shadow.fulls, wantFulls)
					}
					if len(want) != len(r.shadow.image) {
						t.Errorf("%d bytes, the database put in place had %d", len(r.shadow.image), len(want))
					}
				})
			}
		}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// A database file renamed into place while the WAL of the old one is still there
// must not get the old one's pages.
func TestRenamedFileKeepsItsContent(t *testing.T) {
	for _, wait := range []bool{true, false} {
		a := newApp(t, sqlconn.Options{}, 1)
		o := newApp(t, sqlconn.Options{}, 99)
		o.exec("UPDATE a SET v = zeroblob(200)")
		o.close()
		c := captureIn(t, captureSpec{Path: a.path})
		a.update(30)
		c.caughtUp()
		a.update(30)
		a.close()
		if wait {
			a.awaitEmpty()
		}
		before, err := c.r.Last()
		must(t, err, os.Rename(o.path, a.path))
		await(t, "the replacement is noticed", func() bool {
			rep, err := c.r.Last()
			must(t, err)
			return rep.Stats.Comparisons > before.Stats.Comparisons
		})
		a.open()
		var n int
		must(t, a.db.QueryRow("SELECT count(*) FROM a WHERE v <> zeroblob(200)").Scan(&n))
		if n != 0 {
			t.Errorf("waited %t: %d rows of the old database in the new one", wait, n)
		}
		c.caughtUp()
	}
}

// A symbolic link to the database is watched where it leads.
func TestDatabaseBehindSymlink(t *testing.T) {
	a := newApp(t, sqlconn.Options{}, 1)
	link := filepath.Join(t.TempDir(), "link.db")
	must(t, os.Symlink(a.path, link))
	r := run(t, Config{Path: link}, &shadow{})
	a.update(20)
	r.settle()
	r.equal(a.path)
	await(t, "the -wal file is watched", func() bool { return slices.Contains(r.c.notifier.w.WatchList(), a.path+"-wal") })
}
