//go:build cgo

package wal

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"testing"
)

// twin is a database whose transactions are replayed page by page, through an
// Appender, into a copy that foreign connections read.
type twin struct {
	t    *testing.T
	from *DB
	to   *DB
	done uint32 // frames of from that were replayed
}

// newTwin returns a primary with its writer and a copy with a reader.
func newTwin(t *testing.T, kind string, size int) (tw *twin, writer, reader *foreign) {
	t.Helper()
	path, writer := newDatabase(t, "go", size)
	copyPath := path + ".copy.db"
	writer.exec("VACUUM INTO '" + copyPath + "'")
	reader = startForeign(t, kind, copyPath)
	reader.exec("PRAGMA journal_mode=WAL")
	reader.exec("PRAGMA wal_autocheckpoint=0")
	return &twin{t: t, from: openDB(t, path), to: openDB(t, copyPath)}, writer, reader
}

// replay appends what the primary committed since, as one transaction. All
// pages go along the first time.
func (w *twin) replay(leave int) (h Header) {
	w.t.Helper()
	src, before := header(w.t, w.from), header(w.t, w.to)
	pages, err := w.from.Pages(w.done, src.MaxFrame)
	must(w.t, err)
	a, err := w.to.Begin(src.PageSize, false)
	must(w.t, err)
	page := make([]byte, src.PageSize)
	for i, e := range pages[:len(pages)-leave] {
		must(w.t, w.from.ReadPage(uint32(e), src.PageSize, page))
		commit := uint32(0)
		if i == len(pages)-1 {
			commit = src.PageCount
		}
		must(w.t, a.Add(uint32(e>>32), commit, page))
	}
	if leave > 0 {
		must(w.t, a.Flush())
		return Header{}
	}
	h, err = a.Commit(src.PageCount)
	must(w.t, err)
	w.done = src.MaxFrame
	if h.Change != before.Change+1 || h.PageCount != src.PageCount {
		w.t.Fatalf("committed %+v over %+v", h, before)
	}
	if h != header(w.t, w.to) || a.Last() != h.MaxFrame || a.Chain() != h.Chain() || a.Salt() != h.Salt {
		w.t.Fatalf("committed %+v, wal-index says %+v", h, header(w.t, w.to))
	}
	return h
}

const digest = "SELECT count(*), sum(id), sum(length(b)), hex(max(b)), hex(min(b)) FROM t"

func TestAppendedTransactionsAreReadAtOnce(t *testing.T) {
	kinds(t, func(t *testing.T, kind string) {
		for _, size := range pageSizes {
			t.Run(fmt.Sprint(size), func(t *testing.T) {
				w, writer, reader := newTwin(t, kind, size)
				undo := lockAll(t, w.to, Write)
				for i := range 8 {
					writer.insert(1+i*10, 200)
					w.replay(0)
					if got, want := reader.exec(digest), writer.exec(digest); got != want {
						t.Fatalf("round %d: reader sees %s, want %s", i, got, want)
					}
				}
				reader.intact()
				if _, err := reader.try("INSERT INTO t VALUES(99999, 1)"); err == nil {
					t.Fatal("a foreign writer came through while WRITE was held")
				}
				undo()
				reader.insert(5, 100) // SQLite goes on behind our frames
				if _, frames, c := decodeWAL(readFile(t, w.to.path+"-wal")); c != header(t, w.to).Chain() {
					t.Fatalf("file ends at %+v after %d frames, header %+v", c, len(frames), header(t, w.to))
				}
				reader.intact()
			})
		}
	})
}

// TestLeftoversOfADeadWriter leaves frames past the last commit in file and
// hash table, and lets the next writer go over them; both ways.
func TestLeftoversOfADeadWriter(t *testing.T) {
	t.Run("ours then ours", func(t *testing.T) {
		w, writer, reader := newTwin(t, "go", 512)
		undo := lockAll(t, w.to, Write)
		writer.insert(50, 300)
		w.replay(0)
		before := reader.exec(digest)
		writer.insert(4000, 300)
		w.replay(1) // flushed, never committed
		if got := reader.exec(digest); got != before {
			t.Fatalf("uncommitted pages are visible: %s, want %s", got, before)
		}
		w.replay(0)
		if got, want := reader.exec(digest), writer.exec(digest); got != want {
			t.Fatalf("reader sees %s, want %s", got, want)
		}
		reader.intact()
		_, frames, _ := decodeWAL(readFile(t, w.to.path+"-wal"))
		checkIndex(t, w.to, frames, rand.New(rand.NewPCG(1, 1)))
		undo()
	})
	t.Run("ours then theirs", func(t *testing.T) {
		w, writer, reader := newTwin(t, "python", 512)
		undo := lockAll(t, w.to, Write)
		writer.insert(50, 300)
		w.replay(0)
		want := reader.exec(digest)
		writer.insert(2000, 300)
		w.replay(1)
		undo()
		if got := reader.exec(digest); got != want {
			t.Fatalf("reader sees %s, want %s", got, want)
		}
		reader.insert(20, 300)
		reader.intact()
		_, frames, _ := decodeWAL(readFile(t, w.to.path+"-wal"))
		checkIndex(t, w.to, frames, rand.New(rand.NewPCG(1, 1)))
	})
	t.Run("theirs then ours", func(t *testing.T) {
		path, f := newDatabase(t, "go", 512)
		f.insert(50, 300)
		d := openDB(t, path)
		h := header(t, d)
		want := f.exec(digest)
		f.exec("PRAGMA cache_size=5")
		f.exec("BEGIN IMMEDIATE")
		f.insert(3000, 300) // spills
		if tab, err := d.index.table(0, false); err != nil || tab.pgnos[h.MaxFrame] == 0 {
			t.Fatalf("the writer has not spilled: %v", err)
		}
		f.kill()
		within(t, "the dead writer's lock", func() bool {
			hd, err := d.Holder(Write)
			return err == nil && !hd.Held
		})
		if header(t, d) != h {
			t.Fatal("header moved")
		}
		// The same last page once more, in several flushes that begin in the
		// middle of the remnants.
		undo := lockAll(t, d, Write)
		page := make([]byte, 512)
		a, err := d.Begin(512, false)
		must(t, err)
		for pgno := uint32(1); pgno <= 40; pgno++ {
			fr, err := d.Find(pgno, 1, h.MaxFrame)
			must(t, err)
			if fr == 0 {
				continue
			}
			must(t, d.ReadPage(fr, 512, page))
			must(t, a.Add(pgno, 0, page))
			must(t, a.Flush())
		}
		fr, err := d.Find(1, 1, h.MaxFrame)
		must(t, err)
		must(t, d.ReadPage(fr, 512, page))
		must(t, a.Add(1, h.PageCount, page))
		_, err = a.Commit(h.PageCount)
		must(t, err)
		undo()
		g := startForeign(t, "python", path)
		if got := g.exec(digest); got != want {
			t.Fatalf("reader sees %s, want %s", got, want)
		}
		g.intact()
		_, frames, _ := decodeWAL(readFile(t, path+"-wal"))
		checkIndex(t, d, frames, rand.New(rand.NewPCG(1, 1)))
	})
}

// TestAppendAcrossRegions makes transactions end and begin at each frame near
// the borders of the index regions.
func TestAppendAcrossRegions(t *testing.T) {
	path, f := newDatabase(t, "go", 512)
	f.insert(3, 100)
	d := openDB(t, path)
	defer lockAll(t, d, Write)()
	h := header(t, d)
	page, data := make([]byte, 512), make([]byte, 512)
	must(t, d.ReadPage(1, 512, page)) // page 1
	fill := func(n uint32) {
		a, err := d.Begin(512, false)
		must(t, err)
		for i := range n - 1 {
			data[0] = byte(i)
			must(t, a.Add(h.PageCount+1+i%500, 0, data))
		}
		must(t, a.Add(h.PageCount+500, h.PageCount+500, data))
		_, err = a.Commit(h.PageCount + 500)
		must(t, err)
	}
	for _, border := range []uint32{framesInFirst, framesInFirst + framesPerRegion} {
		fill(border - 2 - header(t, d).MaxFrame)
		for range 4 {
			fill(1)
		}
	}
	if got := header(t, d).MaxFrame; got != framesInFirst+framesPerRegion+2 {
		t.Fatalf("at frame %d", got)
	}
	_, frames, _ := decodeWAL(readFile(t, path+"-wal"))
	checkIndex(t, d, frames, rand.New(rand.NewPCG(2, 2)))
}

func TestAppenderRefuses(t *testing.T) {
	path, f := newDatabase(t, "go", 4096)
	f.insert(3, 100)
	d := openDB(t, path)
	if _, err := d.Begin(4096, false); err == nil {
		t.Error("Begin without WRITE")
	}
	defer lockAll(t, d, Write)()
	for _, size := range []uint32{0, 1000, 8192} {
		if _, err := d.Begin(size, false); err == nil {
			t.Errorf("Begin with page size %d", size)
		}
	}
	page := make([]byte, 4096)
	begin := func() *Appender {
		a, err := d.Begin(4096, false)
		must(t, err)
		return a
	}
	before := header(t, d)
	for _, pgno := range []uint32{0, LockPgno(4096)} {
		if err := begin().Add(pgno, 0, page); !errors.Is(err, ErrFormat) {
			t.Errorf("Add(%d): %v", pgno, err)
		}
	}
	if _, err := begin().Commit(2); !errors.Is(err, ErrFormat) {
		t.Errorf("Commit of nothing: %v", err)
	}
	a := begin()
	must(t, a.Add(2, 0, page))
	if _, err := a.Commit(2); !errors.Is(err, ErrFormat) {
		t.Errorf("Commit without a commit frame: %v", err)
	}
	a = begin()
	must(t, a.Add(2, 2, page))
	if err := a.Add(2, 0, page); !errors.Is(err, ErrFormat) {
		t.Errorf("Add behind the commit frame: %v", err)
	}
	if header(t, d) != before {
		t.Error("refused calls moved the header")
	}
	f.intact()
}

// TestFreshWALDrawsSalts: two generations must never share their salts, even
// when nothing of the first is left.
func TestFreshWALDrawsSalts(t *testing.T) {
	path, f := newDatabase(t, "go", 4096)
	f.insert(3, 100)
	f.close()
	d := openDB(t, path)
	h := header(t, d)
	if h.MaxFrame != 0 || h.Salt != (Salt{}) {
		t.Fatalf("not a fresh WAL: %+v", h)
	}
	defer lockAll(t, d, Write)()
	seen := map[Salt]bool{{}: true}
	for range 3 {
		a, err := d.Begin(4096, false)
		must(t, err)
		if seen[a.Salt()] {
			t.Fatalf("salt %x again", a.Salt())
		}
		seen[a.Salt()] = true
	}
	page := make([]byte, 4096)
	_, err := d.ReadFile(page, 0)
	must(t, err)
	a, err := d.Begin(4096, true)
	must(t, err)
	size, err := d.FileSize()
	must(t, err)
	must(t, a.Add(1, uint32(size/4096), page))
	_, err = a.Commit(uint32(size / 4096))
	must(t, err)
	fh, frames, _ := decodeWAL(readFile(t, path+"-wal"))
	if len(frames) != 1 || !fh.BigEndian || !bytes.Equal(frames[0].page, page) {
		t.Fatalf("%d frames, header %+v", len(frames), fh)
	}
	if cli, err := exec.LookPath("sqlite3"); err == nil {
		out, err := exec.Command(cli, path, "SELECT count(*) FROM t").CombinedOutput()
		if err != nil || string(out) != "3\n" {
			t.Fatalf("%v: %s", err, out)
		}
	}
}
