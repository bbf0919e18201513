//go:build cgo

package wal

import (
	"errors"
	"fmt"
	"testing"
	"time"
	"unsafe"
)

func rawHeader(d *DB, which int) (b [indexHeaderSize]byte) {
	d.index.copyHeader(which, &b)
	return b
}

func TestHeaderEqualsSQLites(t *testing.T) {
	kinds(t, func(t *testing.T, kind string) {
		for _, size := range pageSizes {
			path, f := newDatabase(t, kind, size)
			d := openDB(t, path)
			for i := range 3 {
				f.insert(10, size)
				h := header(t, d)
				_, frames, c := decodeWAL(readFile(t, path+"-wal"))
				if h.Chain() != c || int(h.PageSize) != size || h.PageCount != frames[len(frames)-1].Commit {
					t.Fatalf("page size %d: header %+v, wal file says %+v", size, h, c)
				}
				var b [indexHeaderSize]byte
				h.encode(b[:])
				if raw := rawHeader(d, 0); b != raw {
					t.Fatalf("page size %d, round %d: encoded\n%x, SQLite wrote\n%x", size, i, b, raw)
				}
				if got := f.exec("PRAGMA page_count"); got != fmt.Sprint(h.PageCount) {
					t.Fatalf("page count %d, SQLite says %s", h.PageCount, got)
				}
			}
			f.kill()
		}
	})
}

func TestHeaderWaitsForASlowWriter(t *testing.T) {
	path, _ := newDatabase(t, "go", 4096)
	d := openDB(t, path)
	defer lockAll(t, d, Write)()
	h := header(t, d)
	next := h
	next.Change++
	var b [indexHeaderSize]byte
	next.encode(b[:])
	put := func(which int) {
		for i := 0; i < len(b); i += 4 {
			d.index.store(which*indexHeaderSize+i, *(*uint32)(unsafe.Pointer(&b[i])))
		}
	}
	put(1)
	written := make(chan struct{})
	time.AfterFunc(5*time.Millisecond, func() { put(0); close(written) })
	if got := header(t, d); got != next {
		t.Fatalf("got %+v, want %+v", got, next)
	}
	<-written
}

func TestTornHeaderIsRecoveredBySQLite(t *testing.T) {
	path, f := newDatabase(t, "go", 4096)
	f.insert(10, 1000)
	d := openDB(t, path)
	must(t, d.Pin())
	h := header(t, d)
	d.index.store(8, 99) // a writer died between the copies
	if _, err := d.Header(); !errors.Is(err, ErrTorn) {
		t.Fatalf("torn header: %v", err)
	}
	f.intact()
	got := header(t, d)
	got.Change, h.Change = 0, 0
	if got != h {
		t.Fatalf("recovered %+v, want %+v", got, h)
	}
	if d.ReadMark(d.pin.slot) != MarkUnused {
		t.Fatalf("recovery moved the pinned mark to %d", d.ReadMark(d.pin.slot))
	}
}

func FuzzIndexHeader(f *testing.F) {
	for _, h := range []Header{
		{Change: 1, PageSize: 65536, MaxFrame: 9, PageCount: 4, FrameSum: Sum{5, 6}, Salt: Salt{7, 8}},
		{BigEndian: true, PageSize: 512},
	} {
		var b [indexHeaderSize]byte
		h.encode(b[:])
		f.Add(b[:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		b = append(b, make([]byte, max(0, indexHeaderSize-len(b)))...)[:indexHeaderSize]
		h, err := parseHeader(b)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("error %v is no ErrFormat", err)
			}
			return
		}
		var again [indexHeaderSize]byte
		h.encode(again[:])
		h2, err := parseHeader(again[:])
		if err != nil || h2 != h {
			t.Fatalf("%+v encodes to %x, which parses to %+v (%v)", h, again, h2, err)
		}
	})
}
