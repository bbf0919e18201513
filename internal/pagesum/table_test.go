package pagesum

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/superfly/ltx"
)

func openTable(t testing.TB, path string) *Table {
	t.Helper()
	tab, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tab.Close() })
	return tab
}

// oracle is a database as a list of page checksums; page 3 is the lock page.
type oracle []ltx.Checksum

const lockPgno = 3

func (o oracle) sum() ltx.Checksum {
	var x ltx.Checksum
	for i, s := range o {
		if i+1 != lockPgno {
			x ^= s
		}
	}
	return ltx.ChecksumFlag | x
}

// change gives the database another size and new content to some pages, and
// returns those: all that are new among them.
func (o *oracle) change(r *rand.Rand) []Page {
	old := len(*o)
	n := max(1, old+r.IntN(41)-20)
	if r.IntN(10) == 0 {
		n = 1 + r.IntN(30000) // past the first 64 KB, and back
	}
	for len(*o) < n {
		*o = append(*o, 0)
	}
	*o = (*o)[:n]
	var pages []Page
	for i := range *o {
		if i+1 != lockPgno && (i >= old || r.IntN(10) == 0) {
			(*o)[i] = ltx.ChecksumFlag | ltx.Checksum(r.Uint64())
			pages = append(pages, Page{uint32(i + 1), (*o)[i]})
		}
	}
	return pages
}

func (o oracle) check(t *testing.T, tab *Table, pos ltx.Pos) {
	t.Helper()
	if tab.Pos() != pos || int(tab.Count()) != len(o) || tab.Unfinished() != 0 || !tab.Verify() {
		t.Fatalf("table at %v, %d pages, unfinished %v, whole %v; want %v, %d pages", tab.Pos(), tab.Count(), tab.Unfinished(), tab.Verify(), pos, len(o))
	}
	for i, want := range o {
		if got := tab.Get(uint32(i + 1)); got != want && i+1 != lockPgno {
			t.Fatalf("page %d: %s, want %s", i+1, got, want)
		}
	}
	for i, b := range tab.m[headerSize+8*len(o):] {
		if b != 0 {
			t.Fatalf("byte %d behind the last entry is not zero", i)
		}
	}
	if tab.Get(0) != 0 || tab.Get(lockPgno) != 0 || tab.Get(uint32(len(o)+1)) != 0 {
		t.Fatal("a page that is none has a checksum")
	}
}

func TestUpdateAgainstAnOracle(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	path := filepath.Join(t.TempDir(), "sums")
	tab := openTable(t, path)
	if !tab.Verify() || !tab.Pos().IsZero() || tab.PageSize() != 0 {
		t.Fatal("a new table is not empty and whole")
	}
	tab.Reset(4096)
	var o oracle
	for txid := ltx.TXID(1); txid <= 200; txid++ {
		pages := o.change(r)
		pos := ltx.Pos{TXID: txid, PostApplyChecksum: o.sum()}
		if got := tab.After(uint32(len(o)), pages); got != pos.PostApplyChecksum {
			t.Fatalf("txid %d: After says %s, want %s", txid, got, pos.PostApplyChecksum)
		}
		if err := tab.Update(pos, uint32(len(o)), pages); err != nil {
			t.Fatal(err)
		}
		o.check(t, tab, pos)
		if txid%50 == 0 {
			if err := tab.Close(); err != nil {
				t.Fatal(err)
			}
			tab = openTable(t, path)
			o.check(t, tab, pos)
		}
	}
	if tab.PageSize() != 4096 {
		t.Fatalf("page size %d", tab.PageSize())
	}
	tab.Reset(512)
	if !tab.Pos().IsZero() || tab.Count() != 0 || tab.PageSize() != 512 || !tab.Verify() {
		t.Fatal("not empty after Reset")
	}
}

// TestTornUpdate cuts an update short after each of its stores to the entries,
// and does it again.
func TestTornUpdate(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	tab := openTable(t, filepath.Join(t.TempDir(), "sums"))
	tab.Reset(4096)
	var o oracle
	for txid := ltx.TXID(1); txid <= 60; txid++ {
		pages := o.change(r)
		pos := ltx.Pos{TXID: txid, PostApplyChecksum: o.sum()}
		tear(t, tab, pos, uint32(len(o)), pages, r)
		if tab.Unfinished() != txid || tab.Verify() {
			t.Fatalf("torn at %v: unfinished %v, whole %v", txid, tab.Unfinished(), tab.Verify())
		}
		if err := tab.Update(pos, uint32(len(o)), pages); err != nil {
			t.Fatal(err)
		}
		o.check(t, tab, pos)
	}
}

// tear does the beginning of an Update.
func tear(t *testing.T, tab *Table, pos ltx.Pos, count uint32, pages []Page, r *rand.Rand) {
	t.Helper()
	if err := tab.mapBytes(headerSize + 8*int64(max(count, tab.Count()))); err != nil {
		t.Fatal(err)
	}
	*tab.u64(offUnfinished) = uint64(pos.TXID)
	if r.IntN(4) == 0 {
		return
	}
	tab.resize(count)
	for _, p := range pages[:r.IntN(len(pages)+1)] {
		tab.entries()[p.Pgno-1] = uint64(p.Sum)
	}
	if r.IntN(2) == 0 {
		*tab.u64(offSum) = uint64(pos.PostApplyChecksum)
	}
	if r.IntN(2) == 0 {
		*tab.u64(offTXID) = uint64(pos.TXID)
	}
}

func sampleTable(t testing.TB, r *rand.Rand) (path string, o oracle, pos ltx.Pos) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "sums")
	tab := openTable(t, path)
	tab.Reset(4096)
	pages := o.change(r)
	for len(o) < 50 {
		pages = append(pages[:0], o.change(r)...)
	}
	pages = pages[:0]
	for i, s := range o {
		if i+1 != lockPgno {
			pages = append(pages, Page{uint32(i + 1), s})
		}
	}
	pos = ltx.Pos{TXID: 9, PostApplyChecksum: o.sum()}
	if err := tab.Update(pos, uint32(len(o)), pages); err != nil {
		t.Fatal(err)
	}
	if err := tab.Close(); err != nil {
		t.Fatal(err)
	}
	return path, o, pos
}

// sameAs reports whether the table says what it said before it was damaged.
func sameAs(tab *Table, o oracle, pos ltx.Pos) bool {
	if tab.Pos() != pos || int(tab.Count()) != len(o) || tab.PageSize() != 4096 {
		return false
	}
	for i, want := range o {
		if tab.Get(uint32(i+1)) != want && i+1 != lockPgno {
			return false
		}
	}
	return true
}

func TestDamageIsFound(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	path, o, pos := sampleTable(t, r)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	used := headerSize + 8*len(o)
	found := 0
	for i := range tableMutants {
		b := damage(r, good, used)
		p := filepath.Join(t.TempDir(), "sums")
		if err := os.WriteFile(p, b, 0o644); err != nil {
			t.Fatal(err)
		}
		tab, err := Open(p)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("mutant %d: %v", i, err)
			}
			found++
			os.Remove(p)
			continue
		}
		switch whole := tab.Verify() && !tab.Pos().IsZero(); {
		case !whole:
			found++
		case !sameAs(tab, o, pos):
			t.Fatalf("mutant %d is taken for whole: at %v, %d pages", i, tab.Pos(), tab.Count())
		}
		tab.Close()
		os.Remove(p)
	}
	t.Logf("%d of %d found, the others changed nothing", found, tableMutants)
	if found < tableMutants/2 {
		t.Error("most damage was not found")
	}
}

// damage flips bits, cuts, swaps entries or overwrites one with another.
func damage(r *rand.Rand, good []byte, used int) []byte {
	b := bytes.Clone(good)
	n := (used - headerSize) / 8
	at := func(i int) []byte { return b[headerSize+8*i:][:8] }
	i, j := r.IntN(n), r.IntN(n)
	switch r.IntN(6) {
	case 0:
		b[r.IntN(used)] ^= 1 << r.IntN(8)
	case 1:
		b[r.IntN(offSeal+8)] ^= 1 << r.IntN(8)
	case 2:
		b = b[:r.IntN(used)]
	case 3:
		x := bytes.Clone(at(i))
		copy(at(i), at(j))
		copy(at(j), x)
	case 4:
		at(i)[2] ^= 8 // twice the same bit: the XOR stays
		at(j)[2] ^= 8
	case 5:
		copy(at(i), at(j))
	}
	return b
}

func TestOpenLeavesForeignFilesAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notes.txt")
	text := []byte("not a table, and dear to somebody")
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("Open: %v", err)
	}
	if got, _ := os.ReadFile(path); !bytes.Equal(got, text) {
		t.Fatalf("the file now has %d bytes", len(got))
	}
	if err := os.WriteFile(path, make([]byte, 8192), 0o644); err != nil { // died before the magic
		t.Fatal(err)
	}
	if tab := openTable(t, path); !tab.Verify() || tab.Count() != 0 {
		t.Fatal("a table of zeros is not taken for a new one")
	}
}

func TestVerifyChecksThePosition(t *testing.T) {
	tab := openTable(t, filepath.Join(t.TempDir(), "sums"))
	tab.Reset(4096)
	pages := []Page{{1, ltx.ChecksumFlag | 1}, {2, ltx.ChecksumFlag | 2}}
	pos := ltx.Pos{TXID: 1, PostApplyChecksum: tab.After(2, pages) ^ 4}
	if err := tab.Update(pos, 2, pages); err != nil || tab.Verify() {
		t.Fatalf("a position with another checksum is taken for whole (%v)", err)
	}
}

// TestGrowthBeginsWithZeros: what lay behind the last entry does not become one.
func TestGrowthBeginsWithZeros(t *testing.T) {
	tab := openTable(t, filepath.Join(t.TempDir(), "sums"))
	tab.Reset(4096)
	pages := []Page{{1, ltx.ChecksumFlag | 1}, {2, ltx.ChecksumFlag | 2}, {4, ltx.ChecksumFlag | 4}}
	if err := tab.Update(ltx.Pos{TXID: 1, PostApplyChecksum: tab.After(2, pages[:2])}, 2, pages[:2]); err != nil {
		t.Fatal(err)
	}
	tab.m[headerSize+8*(lockPgno-1)] = 0xff // garbage
	pos := ltx.Pos{TXID: 2, PostApplyChecksum: tab.After(4, pages[2:])}
	if err := tab.Update(pos, 4, pages[2:]); err != nil || !tab.Verify() || tab.Get(lockPgno) != 0 {
		t.Fatalf("lock page has the checksum %s, whole %v, %v", tab.Get(lockPgno), tab.Verify(), err)
	}
}

func FuzzTable(f *testing.F) {
	path, _, _ := sampleTable(f, rand.New(rand.NewPCG(3, 3)))
	good, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good[:headerSize+8*60])
	f.Add([]byte(magic))
	f.Add([]byte{})
	p := filepath.Join(f.TempDir(), "fuzz")
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(p, b, 0o644); err != nil {
			t.Fatal(err)
		}
		tab, err := Open(p)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		defer tab.Close()
		whole := tab.Verify()
		tab.Get(tab.Count())
		tab.Get(tab.Count() + 1)
		if whole && tab.Count() < 1000 {
			pages := []Page{{Pgno: 1, Sum: ltx.ChecksumFlag | 5}}
			pos := ltx.Pos{TXID: tab.Pos().TXID + 1, PostApplyChecksum: tab.After(2, pages)}
			if err := tab.Update(pos, 2, pages); err != nil || !tab.Verify() || tab.Get(1) != pages[0].Sum {
				t.Fatalf("update of a whole table: %v, whole %v", err, tab.Verify())
			}
		}
	})
}
