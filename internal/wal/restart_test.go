//go:build cgo

package wal

import (
	"errors"
	"testing"
)

// restart backfills and restarts, as a role does.
func restart(t *testing.T, d *DB) error {
	t.Helper()
	defer lockAll(t, d, Write, Ckpt)()
	_, err := d.Backfill(t.Context())
	must(t, err)
	return d.Restart(NextGeneration(header(t, d)))
}

func TestRestartLetsTheWriterBeginAnew(t *testing.T) {
	kinds(t, func(t *testing.T, kind string) {
		path, f := newDatabase(t, kind, 4096)
		d := openDB(t, path)
		must(t, d.Pin())
		for range 5 {
			f.insert(40, 1000)
			old := header(t, d)
			must(t, restart(t, d))
			h := header(t, d)
			want := old
			want.MaxFrame, want.Salt = 0, Salt{old.Salt[0] + 1, h.Salt[1]}
			if h != want || h.Salt[1] == old.Salt[1] || d.Backfilled() != 0 {
				t.Fatalf("restarted to %+v from %+v", h, old)
			}
			if d.ReadMark(0) != 0 || d.ReadMark(1) != 0 || d.ReadMark(2) != MarkUnused || !d.Pinned() {
				t.Fatalf("marks %d %d %d", d.ReadMark(0), d.ReadMark(1), d.ReadMark(2))
			}
			f.intact() // a reader of the restarted WAL
			f.insert(1, 100)
			_, frames, c := decodeWAL(readFile(t, path+"-wal"))
			if now := header(t, d); now.MaxFrame == 0 || now.MaxFrame >= old.MaxFrame || now.Chain() != c || len(frames) != int(now.MaxFrame) {
				t.Fatalf("after the restart: header %+v, file %+v", now, c)
			}
			f.intact()
		}
		if got := f.exec("PRAGMA wal_checkpoint(TRUNCATE)"); got[:1] != "1" {
			t.Fatalf("the pin was lost in a restart: TRUNCATE says %s", got)
		}
	})
}

func TestRestartThenWrite(t *testing.T) {
	w, writer, reader := newTwin(t, "python", 512)
	undo := lockAll(t, w.to, Write)
	defer undo()
	for i := range 20 {
		writer.insert(1+i*13%200, 300)
		w.replay(0)
		if i%3 == 2 {
			undo := lockAll(t, w.to, Ckpt)
			res, err := w.to.Backfill(t.Context())
			must(t, err)
			if !res.Done() {
				t.Fatalf("%+v", res)
			}
			must(t, w.to.Restart(NextGeneration(header(t, w.to))))
			if i%2 == 0 {
				must(t, w.to.TruncateWAL())
				if n, err := w.to.WALSize(); n != 0 || err != nil {
					t.Fatalf("wal of %d bytes, %v", n, err)
				}
			}
			undo()
		}
		if got, want := reader.exec(digest), writer.exec(digest); got != want {
			t.Fatalf("round %d: reader sees %s, want %s", i, got, want)
		}
		reader.intact()
	}
	_, frames, c := decodeWAL(readFile(t, w.to.path+"-wal"))
	if c != header(t, w.to).Chain() || len(frames) == 0 {
		t.Fatalf("file %+v, header %+v", c, header(t, w.to))
	}
}

func TestRestartRefuses(t *testing.T) {
	path, f := newDatabase(t, "go", 4096)
	d := openDB(t, path)
	f.insert(20, 1000)
	h := header(t, d)
	if err := d.Restart(NextGeneration(h)); err == nil {
		t.Fatal("without locks")
	}
	if err := d.TruncateWAL(); err == nil {
		t.Fatal("truncate without locks")
	}
	undo := lockAll(t, d, Write, Ckpt)
	if err := d.Restart(NextGeneration(h)); !errors.Is(err, ErrNotBackfilled) {
		t.Fatalf("not backfilled: %v", err)
	}
	if err := d.TruncateWAL(); err == nil {
		t.Fatal("truncate before a restart")
	}
	undo()
	r := startForeign(t, "python", path)
	r.exec("BEGIN")
	want := r.exec(digest)
	if err := restart(t, d); !errors.Is(err, ErrBusy) {
		t.Fatalf("with a reader: %v", err)
	}
	if header(t, d) != h {
		t.Fatal("a refused restart moved the header")
	}
	if got := r.exec(digest); got != want {
		t.Fatalf("the reader's snapshot changed: %s, want %s", got, want)
	}
	r.exec("COMMIT")
	stale := NextGeneration(h)
	f.insert(1, 10)
	undo = lockAll(t, d, Write, Ckpt)
	_, err := d.Backfill(t.Context())
	must(t, err)
	if err := d.Restart(stale); err == nil {
		t.Fatal("a generation drawn up before the last commit was accepted")
	}
	undo()
	must(t, restart(t, d))
	f.insert(1, 10)
	f.intact()
}
