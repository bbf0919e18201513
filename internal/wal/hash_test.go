//go:build cgo

package wal

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// lastOf is Find and Pages by brute force over a decoded WAL.
func lastOf(frames []frame, pgno, first, last uint32) uint32 {
	for i := last; i >= max(first, 1); i-- {
		if frames[i-1].Pgno == pgno {
			return i
		}
	}
	return 0
}

func checkIndex(t *testing.T, d *DB, frames []frame, r *rand.Rand) {
	t.Helper()
	n := uint32(len(frames))
	if h := header(t, d); h.MaxFrame != n {
		t.Fatalf("wal-index has %d frames, file %d", h.MaxFrame, n)
	}
	edges := []uint32{0, 1, 4061, 4062, 4063, 8157, 8158, 8159, n - 1, n}
	for i := range 300 {
		first, last := r.Uint32N(n+1), r.Uint32N(n)+1
		if i < len(edges)*len(edges) {
			first, last = min(n, edges[i/len(edges)]), min(n, edges[i%len(edges)])
		}
		pgno := frames[r.IntN(int(n))].Pgno
		if i%10 == 0 {
			pgno += 1 << 20
		}
		got, err := d.Find(pgno, first, last)
		must(t, err)
		if want := lastOf(frames, pgno, first, last); got != want {
			t.Fatalf("Find(%d, %d, %d) = %d, want %d", pgno, first, last, got, want)
		}
		if i%10 == 0 {
			checkPages(t, d, frames, first, last)
		}
	}
	checkPages(t, d, frames, 0, n)
	checkSlots(t, d, n)
}

// checkSlots fails when a table has another number of slots in use than it has
// frames: leftovers fill it up until nothing more goes in.
func checkSlots(t *testing.T, d *DB, last uint32) {
	t.Helper()
	for i := range regionOf(last) + 1 {
		tab, err := d.index.table(i, false)
		must(t, err)
		used := uint32(0)
		for _, s := range tab.slots {
			if s != 0 {
				used++
			}
		}
		if want := min(last, tab.last()) - tab.zero; used != want {
			t.Fatalf("region %d uses %d slots for %d frames", i, used, want)
		}
	}
}

func checkPages(t *testing.T, d *DB, frames []frame, after, last uint32) {
	t.Helper()
	newest := map[uint32]uint32{}
	for i := after; i < last; i++ {
		newest[frames[i].Pgno] = i + 1
	}
	var want []uint64
	for pgno, fr := range newest {
		want = append(want, uint64(pgno)<<32|uint64(fr))
	}
	slices.Sort(want)
	got, err := d.Pages(after, last)
	must(t, err)
	if !slices.Equal(got, want) {
		t.Fatalf("Pages(%d, %d): %d pages, want %d", after, last, len(got), len(want))
	}
}

func TestFindAndPagesPastSeveralRegions(t *testing.T) {
	kinds(t, func(t *testing.T, kind string) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		r := rand.New(rand.NewPCG(seed, 0))
		path, f := newDatabase(t, kind, 512)
		d := openDB(t, path)
		for header(t, d).MaxFrame < 3*4096 {
			f.insert(1+r.IntN(900), 100+r.IntN(900))
			f.exec(fmt.Sprintf("UPDATE t SET b=randomblob(200) WHERE id%%%d=0", 2+r.IntN(20)))
		}
		_, frames, _ := decodeWAL(readFile(t, path+"-wal"))
		checkIndex(t, d, frames, r)
	})
}

// TestHashTableEqualsSQLites builds the index of the same frames with our code
// and compares it with SQLite's, byte by byte.
func TestHashTableEqualsSQLites(t *testing.T) {
	path, f := newDatabase(t, "go", 512)
	f.insert(9000, 400)
	d := openDB(t, path)
	_, frames, _ := decodeWAL(readFile(t, path+"-wal"))
	if len(frames) < framesInFirst+framesPerRegion+10 {
		t.Fatalf("only %d frames", len(frames))
	}
	type copied struct {
		pgnos []uint32
		slots []uint16
	}
	var theirs []copied
	for i := range regionOf(uint32(len(frames))) + 1 {
		tab, err := d.index.table(i, false)
		must(t, err)
		theirs = append(theirs, copied{slices.Clone(tab.pgnos), slices.Clone(tab.slots)})
		tab.pgnos[0], tab.slots[77] = 1, 1 // dirt, which the first frame must clear
	}
	defer lockAll(t, d, Write)()
	for i, fr := range frames {
		must(t, d.index.add(uint32(i+1), fr.Pgno))
	}
	for i, want := range theirs {
		tab, err := d.index.table(i, false)
		must(t, err)
		if !slices.Equal(tab.pgnos, want.pgnos) || !slices.Equal(tab.slots, want.slots) {
			t.Fatalf("region %d differs from SQLite's", i)
		}
	}
}

func TestLastFrames(t *testing.T) {
	e := func(pgno, fr uint64) uint64 { return pgno<<32 | fr }
	got := LastFrames([]uint64{e(2, 1), e(1, 2), e(2, 3), e(9, 4), e(1, 5), e(2, 6)})
	if want := []uint64{e(1, 5), e(2, 6), e(9, 4)}; !slices.Equal(got, want) {
		t.Fatalf("%x, want %x", got, want)
	}
	if len(LastFrames(nil)) != 0 {
		t.Fatal("of nothing")
	}
}

// FuzzIndexTable looks pages up in regions of any bytes and enters frames there:
// whatever a dead writer or a bad disk left, the answer is a frame that was
// asked for and that the region says holds the page.
func FuzzIndexTable(f *testing.F) {
	f.Add([]byte{}, uint32(1), uint32(1), uint32(9), false)
	f.Add([]byte{1, 0, 2, 0, 3, 0xff}, uint32(7), uint32(0), uint32(0xffffffff), true)
	f.Fuzz(func(t *testing.T, fill []byte, pgno, first, last uint32, second bool) {
		regions := [][]byte{make([]byte, regionSize), make([]byte, regionSize)}
		for i := 0; len(fill) > 0 && i < 2*regionSize; i += len(fill) {
			copy(regions[i/regionSize][i%regionSize:], fill)
		}
		x := &index{}
		x.regions.Store(&regions)
		i := 0
		if second {
			i = 1
		}
		tab, err := x.table(i, false)
		must(t, err)
		if got := tab.find(pgno, first, last); got != 0 {
			if got < first || got > last || got <= tab.zero || got > tab.last() || tab.pgnos[got-tab.zero-1] != pgno {
				t.Fatalf("page %d in [%d, %d]: frame %d, table of %d to %d", pgno, first, last, got, tab.zero+1, tab.last())
			}
		}
		frame := tab.zero + 1 + last%uint32(len(tab.pgnos))
		if err := x.add(frame, pgno); err != nil {
			return // full
		}
		if got := tab.find(pgno, frame, frame); pgno != 0 && got != frame {
			t.Fatalf("frame %d of page %d is found as %d", frame, pgno, got)
		}
	})
}
