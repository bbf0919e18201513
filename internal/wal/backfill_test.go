//go:build cgo

package wal

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

func backfill(t *testing.T, d *DB) BackfillResult {
	t.Helper()
	defer lockAll(t, d, Ckpt)()
	res, err := d.Backfill(t.Context())
	must(t, err)
	return res
}

// checkFileAlone fails unless the database file without its WAL holds what f
// sees, and has the size that it says.
func checkFileAlone(t *testing.T, path string, f *foreign) {
	t.Helper()
	b := readFile(t, path)
	alone := filepath.Join(t.TempDir(), "alone.db")
	must(t, os.WriteFile(alone, b, 0o644))
	g := startForeign(t, "go", alone)
	g.intact()
	if got, want := g.exec(digest), f.exec(digest); got != want {
		t.Fatalf("file alone holds %s, want %s", got, want)
	}
	if got, want := g.exec("PRAGMA page_count"), f.exec("PRAGMA page_count"); got != want {
		t.Fatalf("file alone has %s pages, want %s", got, want)
	}
	g.kill()
}

func TestBackfillMakesTheFileWhole(t *testing.T) {
	kinds(t, func(t *testing.T, kind string) {
		for _, size := range pageSizes {
			path, f := newDatabase(t, kind, size)
			d := openDB(t, path)
			must(t, d.Pin())
			f.insert(200, 700)
			if size == 512 {
				f.insert(9000, 400) // several index regions
			}
			h := header(t, d)
			if res := backfill(t, d); !res.Done() || res.Backfilled != h.MaxFrame || res.Reader != 0 {
				t.Fatalf("page size %d: %+v of %+v", size, res, h)
			}
			checkFileAlone(t, path, f)
			if got := f.exec("PRAGMA wal_checkpoint(PASSIVE)"); got != fmt.Sprintf("0|%d|%d", h.MaxFrame, h.MaxFrame) {
				t.Fatalf("SQLite says %s of %d frames", got, h.MaxFrame)
			}
			f.exec("DELETE FROM t WHERE id>20")
			f.exec("VACUUM")
			before, err := d.FileSize()
			must(t, err)
			if res := backfill(t, d); !res.Done() {
				t.Fatalf("page size %d: %+v", size, res)
			}
			after, err := d.FileSize()
			must(t, err)
			if want := int64(header(t, d).PageCount) * int64(size); after != want || after >= before {
				t.Fatalf("page size %d: file of %d bytes, before %d, want %d", size, after, before, want)
			}
			checkFileAlone(t, path, f)
			f.intact()
			f.kill()
		}
	})
}

// TestBackfillGrowsOverPagesWithoutFrames: the last pages of a database may
// have no frame; the file must reach over them all the same, or SQLite calls it
// malformed once the WAL is gone.
func TestBackfillGrowsOverPagesWithoutFrames(t *testing.T) {
	path, f := newDatabase(t, "go", 4096)
	f.insert(10, 100)
	d := openDB(t, path)
	backfill(t, d)
	want := f.exec(digest)
	undo := lockAll(t, d, Write)
	page, count := make([]byte, 4096), header(t, d).PageCount+5
	_, err := d.ReadFile(page, 0)
	must(t, err)
	binary.BigEndian.PutUint32(page[28:], count)
	a, err := d.Begin(4096, false)
	must(t, err)
	must(t, a.Add(1, count, page))
	_, err = a.Commit(count)
	must(t, err)
	undo()
	if res := backfill(t, d); !res.Done() {
		t.Fatalf("%+v", res)
	}
	if size, err := d.FileSize(); err != nil || size != int64(count)*4096 {
		t.Fatalf("file of %d bytes, want %d pages (%v)", size, count, err)
	}
	alone := filepath.Join(t.TempDir(), "alone.db")
	must(t, os.WriteFile(alone, readFile(t, path), 0o644))
	if got := startForeign(t, "python", alone).exec(digest); got != want {
		t.Fatalf("file alone holds %s, want %s", got, want)
	}
}

func TestBackfillStopsAtALongReader(t *testing.T) {
	kinds(t, func(t *testing.T, kind string) {
		path, f := newDatabase(t, "go", 4096)
		d := openDB(t, path)
		f.insert(50, 1000)
		h := header(t, d)
		r := startForeign(t, kind, path)
		r.exec("BEGIN")
		want := r.exec(digest)
		f.exec("UPDATE t SET b=randomblob(1000)")
		f.insert(50, 1000)
		res := backfill(t, d)
		if res.Done() || res.Backfilled != h.MaxFrame || res.Reader == 0 {
			t.Fatalf("%+v, want to stop at frame %d", res, h.MaxFrame)
		}
		if got := r.exec(digest); got != want {
			t.Fatalf("the reader's snapshot changed: %s, want %s", got, want)
		}
		ps, err := d.Pinners()
		must(t, err)
		if len(ps) != 1 || ps[0] != (Pinner{Slot: res.Reader, Mark: h.MaxFrame, PID: r.pid()}) {
			t.Fatalf("pinners %+v, want slot %d, pid %d", ps, res.Reader, r.pid())
		}
		r.exec("COMMIT")
		if res := backfill(t, d); !res.Done() {
			t.Fatalf("%+v", res)
		}
		checkFileAlone(t, path, f)

		r.exec("BEGIN") // now a reader of the file itself
		want = r.exec(digest)
		f.insert(5, 1000)
		if res := backfill(t, d); res.Done() || res.Reader != 0 || res.Backfilled != d.Backfilled() {
			t.Fatalf("%+v while somebody reads the file", res)
		}
		if got := r.exec(digest); got != want {
			t.Fatalf("the reader's snapshot changed: %s, want %s", got, want)
		}
		r.exec("COMMIT")
		if res := backfill(t, d); !res.Done() {
			t.Fatalf("%+v", res)
		}
		checkFileAlone(t, path, f)
	})
}

func TestBackfillBesideAForeignWriter(t *testing.T) {
	path, f := newDatabase(t, "go", 1024)
	d := openDB(t, path)
	must(t, d.Pin())
	r := startForeign(t, "python", path)
	n := 0
	for i := range 150 {
		f.send(fmt.Sprintf("INSERT INTO t(b) VALUES(randomblob(%d))", 10+i*37%5000))
		if res := backfill(t, d); res.Done() && res.Backfilled > 0 {
			n++
		}
		if i%10 == 0 {
			r.intact()
		}
		if _, err := f.receive(); err != nil {
			t.Fatal(err)
		}
	}
	if n == 0 {
		t.Fatal("no backfill was complete")
	}
	if res := backfill(t, d); !res.Done() {
		t.Fatalf("%+v", res)
	}
	checkFileAlone(t, path, f)
}

func TestBackfillRefuses(t *testing.T) {
	path, f := newDatabase(t, "go", 4096)
	d := openDB(t, path)
	f.insert(50, 1000)
	if _, err := d.Backfill(t.Context()); err == nil {
		t.Fatal("without CKPT")
	}
	undo := lockAll(t, d, Ckpt)
	cause := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if res, err := d.Backfill(ctx); !errors.Is(err, cause) || res.Done() || d.Backfilled() != 0 {
		t.Fatalf("cancelled: %+v, %v", res, err)
	}
	undoWrite := lockAll(t, d, Write)
	h := header(t, d)
	bad := h
	bad.PageCount = 1 << 20
	d.index.writeHeader(bad)
	size, err := d.FileSize()
	must(t, err)
	if _, err := d.Backfill(t.Context()); !errors.Is(err, ErrFormat) {
		t.Fatalf("absurd page count: %v", err)
	}
	if now, _ := d.FileSize(); now != size {
		t.Fatalf("absurd page count: file grew from %d to %d", size, now)
	}
	d.index.writeHeader(h)
	undoWrite()
	undo()
	if res := backfill(t, d); !res.Done() {
		t.Fatalf("%+v", res)
	}
	checkFileAlone(t, path, f)
}

// TestBackfillWritesNoPageBeyondTheEnd: pages that a later commit cut off stay
// out of the file even while a reader keeps it from being truncated.
func TestBackfillWritesNoPageBeyondTheEnd(t *testing.T) {
	path, f := newDatabase(t, "go", 4096)
	d := openDB(t, path)
	f.insert(5, 100)
	backfill(t, d)
	before, err := d.FileSize()
	must(t, err)
	f.insert(200, 4000)
	f.exec("DELETE FROM t WHERE id>5")
	f.exec("VACUUM")
	r := startForeign(t, "python", path)
	r.exec("BEGIN")
	r.exec(digest)
	f.exec("UPDATE t SET b=1 WHERE id=1")
	if res := backfill(t, d); res.Done() || res.Reader == 0 {
		t.Fatalf("%+v", res)
	}
	if after, err := d.FileSize(); err != nil || after > before {
		t.Fatalf("file grew from %d to %d bytes (%v)", before, after, err)
	}
	r.exec("COMMIT")
	if res := backfill(t, d); !res.Done() {
		t.Fatalf("%+v", res)
	}
	checkFileAlone(t, path, f)
}

// TestBackfillSeesAWrap: a writer may restart the WAL between a checkpointer's
// look at the header and its lock on READ0; then the old frames are gone.
func TestBackfillSeesAWrap(t *testing.T) {
	path, f := newDatabase(t, "go", 4096)
	d := openDB(t, path)
	f.insert(50, 1000)
	stale := header(t, d)
	must(t, restart(t, d))
	f.insert(1, 10)
	defer lockAll(t, d, Ckpt, Read(0))()
	must(t, d.copyFrames(t.Context(), stale, 0, stale.MaxFrame))
	if d.Backfilled() != 0 {
		t.Fatalf("%d frames backfilled of a generation that has ended", d.Backfilled())
	}
}
