package pagesum

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"github.com/superfly/ltx"
	"golang.org/x/sys/unix"
)

// ErrCorrupt is returned for a file that is not a table.
var ErrCorrupt = errors.New("not a page checksum table")

const (
	magic      = "LTXSUMS1"
	headerSize = 4096
	growBytes  = 64 << 10

	offPageSize   = 8
	offCount      = 12
	offTXID       = 16
	offSum        = 24
	offUnfinished = 32
)

// Table is the mapped table. It is not safe for concurrent use.
type Table struct {
	f *os.File
	m []byte
}

// Open opens the table at path, and makes an empty one (page size 0, TXID 0)
// where there is none. Errors wrap ErrCorrupt when the file is something else.
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
	fresh := fi.Size() == 0
	if err := t.mapBytes(max(fi.Size(), headerSize)); err != nil {
		return err
	}
	if fresh {
		copy(t.m, magic)
	}
	if string(t.m[:8]) != magic || int64(t.Count())*8+headerSize > int64(len(t.m)) {
		return ErrCorrupt
	}
	return nil
}

// mapBytes makes the file and the mapping at least n bytes long.
func (t *Table) mapBytes(n int64) error {
	n = (n + growBytes - 1) / growBytes * growBytes
	if int64(len(t.m)) >= n {
		return nil
	}
	if err := allocate(t.f, n); err != nil {
		return fmt.Errorf("grow to %d bytes: %w", n, err)
	}
	if err := t.unmap(); err != nil {
		return err
	}
	m, err := unix.Mmap(int(t.f.Fd()), 0, int(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map %d bytes: %w", n, err)
	}
	t.m = m
	return nil
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

// Verify recomputes the XOR of all entries and compares it with the header's.
func (t *Table) Verify() bool {
	return t.Unfinished() == 0 && t.total() == t.Pos().PostApplyChecksum || t.Pos().IsZero() && t.Count() == 0
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
		if p.Pgno <= count {
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
	*t.u64(offUnfinished) = uint64(pos.TXID)
	if old := t.entries(); uint32(len(old)) > count {
		clear(old[count:])
	}
	*t.u32(offCount) = count
	entries := t.entries()
	for _, p := range pages {
		if p.Pgno <= count {
			entries[p.Pgno-1] = uint64(p.Sum)
		}
	}
	*t.u64(offSum) = uint64(pos.PostApplyChecksum)
	*t.u64(offTXID) = uint64(pos.TXID)
	*t.u64(offUnfinished) = 0
	return nil
}

// Reset empties the table for a database of this page size.
func (t *Table) Reset(pageSize uint32) {
	*t.u64(offUnfinished) = ^uint64(0)
	clear(t.entries())
	*t.u32(offCount) = 0
	*t.u32(offPageSize) = pageSize
	*t.u64(offSum) = 0
	*t.u64(offTXID) = 0
	*t.u64(offUnfinished) = 0
}
