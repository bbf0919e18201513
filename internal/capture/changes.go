package capture

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/ltxstream/ltxstream/internal/wal"
)

// source says where the content of a changed page is.
type source uint8

const (
	fromZero  source = iota // never written: a page of zeros
	fromGroup               // in memory, at an offset of changes.group
	fromWAL                 // at an offset of the -wal file
	fromFile                // at an offset of the database file
	fromPatch               // at an offset of changes.patch
)

// change is one page of an LTX file to be.
type change struct {
	pgno uint32
	src  source
	off  int64
}

// changes is what one LTX file will hold: every page that differs between the
// last captured state and the state at end.
type changes struct {
	pageSize uint32
	count    uint32    // pages of the database at end
	pages    []change  // ascending, without the lock page
	start    uint32    // first frame covered
	end      wal.Chain // place in the WAL that the state is at
	commits  int
	full     bool

	group []byte      // memory of fromGroup
	patch io.ReaderAt // file of fromPatch

	// ease is called now and then while the file is written: a checkpointer may
	// wait for the pin. An error ends it. nil: the pin is not held, or not for long.
	ease func() error
}

// page returns the content of one change, in buf or in memory of c.
func (c *changes) page(db *wal.DB, ch change, buf []byte) ([]byte, error) {
	buf = buf[:c.pageSize]
	var err error
	switch ch.src {
	case fromZero:
		clear(buf)
	case fromGroup:
		return c.group[ch.off : ch.off+int64(c.pageSize)], nil
	case fromWAL:
		_, err = db.ReadWAL(buf, ch.off)
	case fromFile:
		err = readOrZero(db, buf, ch.off)
	case fromPatch:
		_, err = c.patch.ReadAt(buf, ch.off)
	}
	if err != nil {
		return nil, fmt.Errorf("read page %d: %w", ch.pgno, err)
	}
	return buf, nil
}

// readOrZero reads a page of the database file; what lies beyond its end, not
// yet backfilled and never written, is zeros.
func readOrZero(db *wal.DB, buf []byte, off int64) error {
	n, err := db.ReadFile(buf, off)
	if errors.Is(err, io.EOF) {
		clear(buf[n:])
		return nil
	}
	return err
}

// unwritten returns where the content of a page is that came into being without
// a frame: SQLite does not write the content of free pages. It is what a reader
// would see at frame last: an older frame of this generation, else the file.
func unwritten(db *wal.DB, pgno, pageSize, last uint32) (change, error) {
	frame, err := db.Find(pgno, 1, last)
	if err != nil {
		return change{}, fmt.Errorf("find page %d in the wal: %w", pgno, err)
	}
	if frame != 0 {
		return change{pgno, fromWAL, wal.FrameOffset(frame, pageSize) + wal.FrameHeaderSize}, nil
	}
	return change{pgno, fromFile, int64(pgno-1) * int64(pageSize)}, nil
}

// lacks reports whether pages in (from, count] are missing.
func (c *changes) lacks(from uint32) bool {
	if c.count <= from {
		return false
	}
	want := int(c.count - from)
	if lock := wal.LockPgno(c.pageSize); lock > from && lock <= c.count {
		want--
	}
	return len(c.pages)-c.upTo(from) < want
}

// upTo returns how many pages are there up to pgno.
func (c *changes) upTo(pgno uint32) int {
	i, _ := slices.BinarySearchFunc(c.pages, pgno+1, func(ch change, want uint32) int { return cmp.Compare(ch.pgno, want) })
	return i
}

// addUnwritten completes pages with those in (from, count] that have no frame. A
// reader finds them in the WAL up to frame last, or else in the file.
func (c *changes) addUnwritten(db *wal.DB, from, last uint32) error {
	have := c.upTo(from)
	var missing []change
	lock, next := wal.LockPgno(c.pageSize), have
	for pgno := from + 1; pgno <= c.count; pgno++ {
		if next < len(c.pages) && c.pages[next].pgno == pgno {
			next++
			continue
		}
		if pgno == lock {
			continue
		}
		ch, err := unwritten(db, pgno, c.pageSize, last)
		if err != nil {
			return err
		}
		missing = append(missing, ch)
	}
	c.pages = merge(c.pages, missing)
	return nil
}

// merge joins two ascending lists without common pages.
func merge(a, b []change) []change {
	if len(b) == 0 {
		return a
	}
	out := make([]change, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		if a[0].pgno < b[0].pgno {
			out, a = append(out, a[0]), a[1:]
		} else {
			out, b = append(out, b[0]), b[1:]
		}
	}
	return append(append(out, a...), b...)
}
