package capture

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"github.com/mattn/go-sqlite3"

	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

// pageWork changes a database in the ways that its pages can change.
func pageWork(a *app) {
	a.exec("CREATE TABLE IF NOT EXISTS b (x BLOB)")
	for range 3 {
		a.exec("INSERT INTO b VALUES (randomblob(300000))") // grow
		a.exec("DELETE FROM b")                             // free pages
		a.exec("PRAGMA incremental_vacuum(20)")
		a.exec("INSERT INTO b VALUES (zeroblob(200000))") // overwrite them, some without a frame
		a.update(5)
		a.exec("DROP TABLE b")
		a.exec("VACUUM") // shrink
		a.exec("CREATE TABLE b (x BLOB)")
		a.exec("BEGIN; UPDATE a SET v = x'01' WHERE id = 1; UPDATE a SET v = x'02' WHERE id = 1; UPDATE a SET v = x'03' WHERE id = 1; COMMIT")
		a.exec("BEGIN; CREATE TABLE c (x); INSERT INTO c VALUES (randomblob(200000)); DROP TABLE c; COMMIT") // free pages that were never written
		a.exec("BEGIN; SAVEPOINT s; INSERT INTO b VALUES (randomblob(100000)); ROLLBACK TO s; UPDATE a SET v = x'04' WHERE id = 2; COMMIT")
	}
	a.exec("CREATE TABLE IF NOT EXISTS w (k TEXT PRIMARY KEY, v) WITHOUT ROWID")
	a.exec("INSERT OR REPLACE INTO w SELECT hex(v), id FROM a")
}

func TestPages(t *testing.T) {
	for size := 512; size <= 65536; size *= 2 {
		for auto := range 3 {
			t.Run(fmt.Sprintf("size %d auto_vacuum %d", size, auto), func(t *testing.T) {
				t.Parallel()
				a := newApp(t, sqlconn.Options{PageSize: size, AutoVacuum: auto}, 1)
				r := run(t, Config{Path: a.path, SoftWALLimit: 1 << 20}, &shadow{})
				for range 3 {
					pageWork(a)
					r.settle()
					r.equal(a.path)
				}
				if r.shadow.fulls != 1 || int(r.shadow.pageSize) != size {
					t.Errorf("%d full files, page size %d", r.shadow.fulls, r.shadow.pageSize)
				}
			})
		}
	}
}

// Pages that came into being without a frame are captured as a reader sees them.
func TestPagesWithoutFrames(t *testing.T) {
	a := newApp(t, sqlconn.Options{PageSize: 512, AutoCheckpoint: -1}, 1)
	a.checkpoint("TRUNCATE")
	a.exec("UPDATE a SET v = randomblob(200) WHERE id = 1")
	w := openWAL(t, a.path)
	h, err := w.Header()
	must(t, err)
	inWAL, err := w.Pages(0, h.MaxFrame)
	must(t, err)
	ch := &changes{pageSize: 512, count: h.PageCount + 2, end: h.Chain(), pages: []change{{pgno: 7, src: fromZero}}}
	must(t, ch.addUnwritten(w, 2, h.MaxFrame))
	image := append(imageOf(t, a.path), make([]byte, 2*512)...)
	for i, p := range ch.pages {
		if int(p.pgno) != i+3 {
			t.Fatalf("page %d at %d", p.pgno, i)
		}
		b, err := ch.page(w, p, make([]byte, 512))
		must(t, err)
		if want := image[(p.pgno-1)*512:][:512]; p.pgno != 7 && !bytes.Equal(b, want) {
			t.Errorf("page %d (source %d) is not what a reader sees", p.pgno, p.src)
		}
	}
	if len(ch.pages) != int(h.PageCount) || len(inWAL) == 0 {
		t.Errorf("%d pages, %d in the wal", len(ch.pages), len(inWAL))
	}
}

func TestReservedBytes(t *testing.T) {
	a := newApp(t, sqlconn.Options{}, 1)
	must(t, raw(t, a.db, func(c *sqlite3.SQLiteConn) error {
		return c.SetFileControlInt("main", sqlite3.SQLITE_FCNTL_RESERVE_BYTES, 32)
	}))
	a.exec("PRAGMA journal_mode=delete")
	a.exec("VACUUM")
	a.exec("PRAGMA journal_mode=wal")
	r := run(t, Config{Path: a.path}, &shadow{})
	pageWork(a)
	r.settle()
	r.equal(a.path)
	if r.shadow.image[20] != 32 {
		t.Errorf("%d reserved bytes", r.shadow.image[20])
	}
}

func TestEmptyDatabase(t *testing.T) {
	path := t.TempDir() + "/app.db"
	must(t, os.WriteFile(path, nil, 0o644))
	r := run(t, Config{Path: path}, &shadow{})
	r.settle()
	db := openRaw(t, path+"?_busy_timeout=5000")
	_, err := db.Exec("CREATE TABLE t (a); INSERT INTO t VALUES (1)")
	must(t, err)
	r.settle()
	r.equal(path)
}

// A database that crosses 1 GiB has a lock page, which has no content.
func TestLockPage(t *testing.T) {
	if !soak {
		t.Skip("1 GiB: only in a soak")
	}
	a := newApp(t, sqlconn.Options{PageSize: 65536}, 1)
	a.exec("CREATE TABLE b (x BLOB)")
	for range 8 {
		a.exec("INSERT INTO b VALUES (zeroblob(133000000))")
	}
	r := run(t, Config{Path: a.path}, &shadow{})
	r.settle()
	a.exec("INSERT INTO b VALUES (zeroblob(20000000))")
	a.update(5)
	r.settle()
	if n := len(r.shadow.image); n < 1<<30 {
		t.Errorf("only %d bytes", n)
	}
	r.equal(a.path)
}
