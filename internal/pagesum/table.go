package pagesum

import (
	"errors"
	"fmt"
	"io"
	"os"
	"unsafe"

	"github.com/superfly/ltx"
	"golang.org/x/sys/unix"

	"github.com/ltxstream/ltxstream/internal/crc64iso"
)

// ErrCorrupt is returned for a file that is not a table.
var ErrCorrupt = errors.New("not a page checksum table")

const (
	magic      = "LTXSUMS1"
	headerSize = 4096
	growBytes  = 8 << 10 // small, for there may be thousands of small databases

	offPageSize   = 8
	offCount      = 12
	offTXID       = 16
	offSum        = 24
	offUnfinished = 32
	offMix        = 40 // guards the entries against swaps, which an XOR cannot see
	offSeal       = 48 // guards the header
)

// Table is the mapped table. It is not safe for concurrent use.
type Table struct {
	f *os.File
	m []byte
}

// Open opens the table at path, and makes an empty one (page size 0, TXID 0)
// where there is none. Errors wrap ErrCorrupt when the file is something else;
// it is then left as it is. A whole header says nothing of the entries: see
// Verify.
func Open(path string) (*Table, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open page checksums: %w", err)
	}
	t := &Table{f: f}
	if err := t.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("open page checksums %s: %w", path, err), t.Close())
	}
	return t, nil
}

func (t *Table) load() error {
	fi, err := t.f.Stat()
	if err != nil {
		return err
	}
	var head [headerSize]byte
	if _, err := t.f.ReadAt(head[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	fresh := head == [headerSize]byte{} // new, or its maker died before the magic
	if !fresh && string(head[:len(magic)]) != magic {
		return ErrCorrupt
	}
	if err := t.mapBytes(max(fi.Size(), headerSize)); err != nil {
		return err
	}
	if fresh {
		copy(t.m, magic)
		t.Reset(0)
	}
	if int64(t.Count())*8+headerSize > int64(len(t.m)) {
		return ErrCorrupt
	}
	return nil
}

// mapBytes makes the file and the mapping at least n bytes long.
func (t *Table) mapBytes(n int64) error {
	if int64(len(t.m)) >= n {
		return nil
	}
	if len(t.m) > 0 {
		n += n / 8 // a growing one is not mapped anew at each step
	}
	n = (n + growBytes - 1) / growBytes * growBytes
	if err := allocate(t.f, n); err != nil {
		return fmt.Errorf("grow to %d bytes: %w", n, err)
	}
	m, err := unix.Mmap(int(t.f.Fd()), 0, int(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map %d bytes: %w", n, err)
	}
	err = t.unmap()
	t.m = m
	return err
}

// allocate writes a byte to each block, so that a full disk is an error now and
// not a fault in a mapped store later.
func allocate(f *os.File, n int64) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	for off := fi.Size()/4096*4096 + 4095; off < n; off += 4096 {
		if off < fi.Size() {
			continue
		}
		if _, err := f.WriteAt([]byte{0}, off); err != nil {
			return err
		}
	}
	return nil
}

func (t *Table) unmap() error {
	if t.m == nil {
		return nil
	}
	err := unix.Munmap(t.m)
	t.m = nil
	return err
}

// Close unmaps and closes the table.
func (t *Table) Close() error { return errors.Join(t.unmap(), t.f.Close()) }

func (t *Table) u32(off int) *uint32 { return (*uint32)(unsafe.Pointer(&t.m[off])) }
func (t *Table) u64(off int) *uint64 { return (*uint64)(unsafe.Pointer(&t.m[off])) }

func (t *Table) entries() []uint64 {
	n := int(t.Count())
	if n == 0 {
		return nil
	}
	return unsafe.Slice(t.u64(headerSize), n)
}

// PageSize returns the page size in bytes; 0: the table is empty.
func (t *Table) PageSize() uint32 { return *t.u32(offPageSize) }

// Count returns the size of the database in pages.
func (t *Table) Count() uint32 { return *t.u32(offCount) }

// Pos returns the position that the table describes; zero: none.
func (t *Table) Pos() ltx.Pos {
	return ltx.Pos{TXID: ltx.TXID(*t.u64(offTXID)), PostApplyChecksum: ltx.Checksum(*t.u64(offSum))}
}

// Unfinished returns the TXID of an update that a crash cut short, or 0. Doing
// that update again completes it.
func (t *Table) Unfinished() ltx.TXID { return ltx.TXID(*t.u64(offUnfinished)) }

// Get returns the checksum of a page; 0 beyond the end and for the lock page.
func (t *Table) Get(pgno uint32) ltx.Checksum {
	if pgno == 0 || pgno > t.Count() {
		return 0
	}
	return ltx.Checksum(*t.u64(headerSize + 8*int(pgno-1)))
}

// Verify reports whether the table is finished and whole: the header is as it
// was sealed, and so are the entries; their XOR is the position's checksum.
func (t *Table) Verify() bool {
	if t.Unfinished() != 0 || *t.u64(offSeal) != t.seal() {
		return false
	}
	if t.Count() == 0 && t.Pos().IsZero() {
		return *t.u64(offMix) == 0
	}
	return t.total() == t.Pos().PostApplyChecksum && t.mixAll() == *t.u64(offMix)
}

// seal returns the checksum of the header as it is when no update is under way.
func (t *Table) seal() uint64 {
	return crc64iso.Update(crc64iso.Update(0, t.m[:offUnfinished]), t.m[offMix:offSeal])
}

// finish seals the header and ends the update under way.
func (t *Table) finish() {
	*t.u64(offSeal) = t.seal()
	*t.u64(offUnfinished) = 0
}

// mix hashes an entry with its page number; no entry is 0.
func mix(pgno uint32, entry uint64) uint64 {
	if entry == 0 {
		return 0
	}
	x := entry ^ uint64(pgno)*0x9e3779b97f4a7c15
	x = (x ^ x>>32) * 0xd6e8feb86659fd93
	return (x ^ x>>32) * 0xd6e8feb86659fd93
}

func (t *Table) mixAll() (x uint64) {
	for i, e := range t.entries() {
		x ^= mix(uint32(i+1), e)
	}
	return x
}

func (t *Table) total() ltx.Checksum {
	var x uint64
	for _, e := range t.entries() {
		x ^= e
	}
	return ltx.ChecksumFlag | ltx.Checksum(x)
}

// After returns what the rolling checksum will be once the database has count
// pages and the given pages, each named once, have these checksums.
func (t *Table) After(count uint32, pages []Page) ltx.Checksum {
	x := t.Pos().PostApplyChecksum
	for pgno := count + 1; pgno <= t.Count(); pgno++ {
		x ^= t.Get(pgno)
	}
	for _, p := range pages {
		if p.Pgno != 0 && p.Pgno <= count {
			x ^= t.Get(p.Pgno) ^ p.Sum
		}
	}
	return ltx.ChecksumFlag | x
}

// Update moves the table to pos, where the database has count pages and these
// pages have changed. A crash at any point leaves it unfinished, and the same
// Update again completes it.
func (t *Table) Update(pos ltx.Pos, count uint32, pages []Page) error {
	if err := t.mapBytes(headerSize + 8*int64(max(count, t.Count()))); err != nil {
		return fmt.Errorf("update page checksums: %w", err)
	}
	again := t.Unfinished() != 0
	*t.u64(offUnfinished) = uint64(pos.TXID)
	x := *t.u64(offMix) ^ t.resize(count)
	entries := t.entries()
	for _, p := range pages {
		if p.Pgno == 0 || p.Pgno > count {
			continue
		}
		e := &entries[p.Pgno-1]
		x ^= mix(p.Pgno, *e) ^ mix(p.Pgno, uint64(p.Sum))
		*e = uint64(p.Sum)
	}
	if again {
		x = t.mixAll() // some of the entries were new before
	}
	*t.u64(offMix) = x
	*t.u64(offSum) = uint64(pos.PostApplyChecksum)
	*t.u64(offTXID) = uint64(pos.TXID)
	t.finish()
	return nil
}

// resize sets the page count, with zero entries for the pages that come and
// those that go, and returns by how much that changes the mix.
func (t *Table) resize(count uint32) (x uint64) {
	if old := t.entries(); uint32(len(old)) > count {
		for i, e := range old[count:] {
			x ^= mix(count+uint32(i)+1, e)
		}
		clear(old[count:])
	}
	if old := t.Count(); count > old {
		clear(t.m[headerSize+8*int(old) : headerSize+8*int(count)])
	}
	*t.u32(offCount) = count
	return x
}

// Reset empties the table for a database of this page size.
func (t *Table) Reset(pageSize uint32) {
	*t.u64(offUnfinished) = ^uint64(0)
	clear(t.entries())
	*t.u32(offCount) = 0
	*t.u32(offPageSize) = pageSize
	*t.u64(offSum) = 0
	*t.u64(offTXID) = 0
	*t.u64(offMix) = 0
	t.finish()
}
