//go:build cgo

package wal

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestPinStopsForeignRestartsOnly(t *testing.T) {
	kinds(t, func(t *testing.T, kind string) {
		path, f := newDatabase(t, kind, 4096)
		d := openDB(t, path)
		f.insert(30, 1000)
		must(t, d.Pin())
		must(t, d.Pin()) // again: no-op
		h := header(t, d)
		all := fmt.Sprintf("0|%d|%d", h.MaxFrame, h.MaxFrame)
		if got := f.exec("PRAGMA wal_checkpoint(PASSIVE)"); got != all || d.Backfilled() != h.MaxFrame {
			t.Fatalf("PASSIVE says %s, want %s", got, all)
		}
		for _, mode := range []string{"RESTART", "TRUNCATE"} {
			if got := f.exec("PRAGMA wal_checkpoint(" + mode + ")"); !strings.HasPrefix(got, "1|") {
				t.Fatalf("%s went past the pin: %s", mode, got)
			}
		}
		f.insert(1, 10) // the writer's own restart, at the first frame
		if now := header(t, d); now.Salt != h.Salt || now.MaxFrame <= h.MaxFrame {
			t.Fatalf("a writer went past the pin: %+v, before %+v", now, h)
		}
		must(t, d.Unpin())
		must(t, d.Unpin())
		if got := f.exec("PRAGMA wal_checkpoint(TRUNCATE)"); got != "0|0|0" {
			t.Fatalf("TRUNCATE after Unpin: %s", got)
		}
		if now := header(t, d); now.MaxFrame != 0 || now.Salt == h.Salt {
			t.Fatalf("header %+v after TRUNCATE", now)
		}
		f.insert(1, 10)
		f.intact()
	})
}

func TestForeignReadersNeverUseThePinnedSlot(t *testing.T) {
	kinds(t, func(t *testing.T, kind string) {
		path, f := newDatabase(t, "go", 4096)
		d := openDB(t, path)
		must(t, d.Pin())
		slot := d.pin.slot
		if slot != 4 {
			t.Fatalf("pinned slot %d, want 4", slot)
		}
		var readers []*foreign
		for i := range 6 { // more snapshots than free slots
			f.insert(1, 1000)
			r := startForeign(t, kind, path)
			r.exec("BEGIN")
			if n := r.exec("SELECT count(*) FROM t"); n != fmt.Sprint(min(i+1, 6)) && i < 3 {
				t.Fatalf("reader %d sees %s rows", i, n)
			}
			readers = append(readers, r)
			if h, err := d.Holder(Read(slot)); err != nil || h.Held || d.ReadMark(slot) != MarkUnused {
				t.Fatalf("reader %d uses the pinned slot: %+v, mark %d, %v", i, h, d.ReadMark(slot), err)
			}
		}
		ps, err := d.Pinners()
		must(t, err)
		if len(ps) != 3 {
			t.Fatalf("pinners %+v, want slots 1 to 3", ps)
		}
		backfill(t, d)
		if d.ReadMark(slot) != MarkUnused {
			t.Fatal("a backfill moved the pinned mark")
		}
		for _, r := range readers {
			r.exec("COMMIT")
			r.intact()
		}
	})
}

func TestPinTakesAFreeSlot(t *testing.T) {
	path, f := newDatabase(t, "go", 4096)
	d := openDB(t, path)
	var readers []*foreign
	for range 4 {
		f.insert(1, 1000)
		r := startForeign(t, "go", path)
		r.exec("BEGIN")
		r.exec("SELECT * FROM t")
		readers = append(readers, r)
	}
	if err := d.Pin(); !errors.Is(err, ErrBusy) || d.Pinned() {
		t.Fatalf("with all slots in use: %v", err)
	}
	readers[0].exec("COMMIT")
	must(t, d.Pin())
	if !d.Pinned() || d.pin.slot != 1 {
		t.Fatalf("pinned slot %d, want the free one, 1", d.pin.slot)
	}
	for _, r := range readers[1:] {
		r.exec("COMMIT")
	}
	must(t, restart(t, d))
	if d.ReadMark(1) != MarkUnused {
		t.Fatalf("restart gave the pinned slot the mark %d", d.ReadMark(1))
	}
	f.insert(1, 10)
	readers[0].intact()
	must(t, d.Unpin())
}
