package wal

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Layout of the wal-index (walformat.html section 2).
const (
	regionSize      = 32768
	framesPerRegion = 4096
	hashSlots       = 8192
	headerBytes     = 136
	framesInFirst   = framesPerRegion - headerBytes/4 // 4062

	offBackfill          = 96
	offReadMarks         = 100
	offBackfillAttempted = 128
)

// Readers is the number of READ locks and read marks.
const Readers = 5

// MarkUnused is the value of a read mark that no reader may use.
const MarkUnused = 0xffffffff

// ErrTorn is returned when the wal-index header stayed inconsistent: a writer
// died while it wrote it, or the index awaits recovery by the next SQLite
// connection.
var ErrTorn = errors.New("wal-index header is torn")

// index is the mapped wal-index. Any number of goroutines may use it; what
// keeps writers apart is SQLite's lock bytes.
type index struct {
	f       *os.File
	grow    sync.Mutex
	maps    [][]byte // what was mapped, each of mapUnit bytes; guarded by grow
	regions atomic.Pointer[[][]byte]
}

// mapUnit is how much is mapped at once: a region, or a memory page where those
// are larger, since a mapping begins at a memory page (unixShmRegionPerMap).
var mapUnit = max(regionSize, os.Getpagesize())

func openIndex(f *os.File) (*index, error) {
	x := &index{f: f}
	x.regions.Store(&[][]byte{})
	fi, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("stat wal-index: %w", err)
	}
	if fi.Size() < int64(mapUnit) {
		return nil, fmt.Errorf("wal-index of %d bytes, want %d: no SQLite connection holds the database open: %w", fi.Size(), mapUnit, ErrFormat)
	}
	if _, err := x.region(0, false); err != nil {
		return nil, err
	}
	return x, nil
}

// close unmaps the index. Nothing may use it afterwards.
func (x *index) close() error {
	x.grow.Lock()
	defer x.grow.Unlock()
	var errs []error
	for _, m := range x.maps {
		errs = append(errs, unix.Munmap(m))
	}
	x.maps = nil
	x.regions.Store(&[][]byte{})
	return errors.Join(errs...)
}

// region returns the i-th 32 KB of the index. extend lets the file grow.
func (x *index) region(i int, extend bool) ([]byte, error) {
	if rs := *x.regions.Load(); i < len(rs) {
		return rs[i], nil
	}
	return x.mapUpTo(i, extend)
}

func (x *index) mapUpTo(i int, extend bool) ([]byte, error) {
	x.grow.Lock()
	defer x.grow.Unlock()
	rs := *x.regions.Load()
	if i < len(rs) {
		return rs[i], nil
	}
	if err := x.ensureSize(int64(i*regionSize/mapUnit+1)*int64(mapUnit), extend); err != nil {
		return nil, err
	}
	grown := append([][]byte(nil), rs...)
	for len(grown) <= i {
		m, err := unix.Mmap(int(x.f.Fd()), int64(len(grown))*regionSize, mapUnit, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return nil, fmt.Errorf("map wal-index region %d: %w", len(grown), err)
		}
		sparse(m)
		x.maps = append(x.maps, m)
		for off := 0; off < mapUnit; off += regionSize {
			grown = append(grown, m[off:off+regionSize])
		}
	}
	x.regions.Store(&grown)
	return grown[i], nil
}

// sparse keeps the hash table behind the first memory page of m from becoming
// resident with that page, on which the header is: an idle database is looked at
// now and then, and only its header. It is advice; without it all is the same.
func sparse(m []byte) {
	if len(m) > os.Getpagesize() {
		_ = unix.Madvise(m[os.Getpagesize():], unix.MADV_RANDOM)
	}
}

func (x *index) ensureSize(size int64, extend bool) error {
	fi, err := x.f.Stat()
	if err != nil {
		return fmt.Errorf("stat wal-index: %w", err)
	}
	if fi.Size() >= size {
		return nil
	}
	if !extend {
		return fmt.Errorf("wal-index of %d bytes, want %d: %w", fi.Size(), size, ErrFormat)
	}
	// A byte in every page now, so that a full disk is an error here and not a
	// fault in the middle of a mapped store.
	for off := fi.Size()/4096*4096 + 4095; off < size; off += 4096 {
		if _, err := x.f.WriteAt([]byte{0}, off); err != nil {
			return fmt.Errorf("grow wal-index: %w", err)
		}
	}
	return nil
}

func (x *index) word(off int) *uint32 {
	return (*uint32)(unsafe.Pointer(&(*x.regions.Load())[0][off]))
}

func (x *index) load(off int) uint32     { return atomic.LoadUint32(x.word(off)) }
func (x *index) store(off int, v uint32) { atomic.StoreUint32(x.word(off), v) }

func (x *index) copyHeader(which int, b *[indexHeaderSize]byte) {
	for i := 0; i < indexHeaderSize; i += 4 {
		*(*uint32)(unsafe.Pointer(&b[i])) = x.load(which*indexHeaderSize + i)
	}
}

// headerPatience is how long the two copies of the header may differ before
// their writer is held for dead. A live one needs nanoseconds, unless it loses
// its processor between the copies.
const headerPatience = 100 * time.Millisecond

// header reads both copies and compares them, as walIndexTryHdr does. Where
// SQLite then takes WRITE to tell a dead writer from a slow one, it waits.
func (x *index) header() (Header, error) {
	var a, b [indexHeaderSize]byte
	var deadline time.Time
	for n := 0; ; n++ {
		x.copyHeader(0, &a)
		x.copyHeader(1, &b)
		switch {
		case a == b:
			return parseHeader(a[:])
		case n < 100:
			continue
		case deadline.IsZero():
			deadline = time.Now().Add(headerPatience)
		case time.Now().After(deadline):
			return Header{}, ErrTorn
		}
		time.Sleep(50 * time.Microsecond)
	}
}

// writeHeader publishes h: copy 1, barrier, copy 0. The caller holds WRITE.
func (x *index) writeHeader(h Header) {
	var b [indexHeaderSize]byte
	h.encode(b[:])
	for _, which := range [2]int{1, 0} {
		for i := 0; i < indexHeaderSize; i += 4 {
			x.store(which*indexHeaderSize+i, *(*uint32)(unsafe.Pointer(&b[i])))
		}
	}
}
