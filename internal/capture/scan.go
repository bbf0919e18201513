package capture

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/ltxstream/ltxstream/internal/pagesum"
	"github.com/ltxstream/ltxstream/internal/wal"
	"github.com/superfly/ltx"
)

// A comparison reads the whole database and keeps the pages that differ from
// the checksum table (or all of them, for a full file), as of one commit.
//
// It needs the pin and no other lock. Nothing but a backfill writes to the
// database file, a backfill writes only pages that have a frame in the WAL, and
// the pin keeps those frames there. So the file is read first, while anybody
// writes; then the last frame of each page in the WAL takes precedence over
// whatever was read. What remains from the file cannot have changed meanwhile.
//
// For a checkpointer that waits the pin is let go once all of the WAL is in the
// file: of what was read, the pages that have a frame then are read again later.
type comparison struct {
	out  *os.File // pages kept; nil: none are
	keep func(pgno uint32, sum ltx.Checksum) bool
	// breathe lets go of the pin for a moment where a checkpointer waits for it; it
	// calls forget first, with the header up to which all is in the file. awaited
	// reports whether one does. Both are called between two reads.
	breathe func(ctx context.Context, forget func(wal.Header) error) error
	awaited func() (bool, error)

	db       *wal.DB
	pageSize uint32
	w        *bufio.Writer
	size     int64
	sums     []ltx.Checksum // by page, from 1
	kept     []int64        // by page: offset in out plus one; 0: not kept
	stale    []uint32       // pages to be read again, ascending
}

// errEmpty is returned for a database of no pages: nothing was written to it yet.
var errEmpty = errors.New("database is empty")

// compared is the outcome: a state of the database that existed.
type compared struct {
	count  uint32
	end    wal.Chain
	change uint32         // change counter of the wal-index header
	sums   []ltx.Checksum // of pages 1..count; 0 for the lock page
	kept   []int64
}

// total returns the rolling checksum of the state.
func (c compared) total() ltx.Checksum {
	x := ltx.ChecksumFlag
	for _, s := range c.sums {
		x ^= s &^ ltx.ChecksumFlag
	}
	return x
}

// pages returns the checksums as entries for the table.
func (c compared) pages() []pagesum.Page {
	ps := make([]pagesum.Page, 0, len(c.sums))
	for i, s := range c.sums {
		ps = append(ps, pagesum.Page{Pgno: uint32(i + 1), Sum: s})
	}
	return ps
}

// compare runs c on db.
func compare(ctx context.Context, db *wal.DB, c comparison) (compared, error) {
	if !db.Pinned() {
		return compared{}, errors.New("compare database: the wal is not pinned")
	}
	size, err := pageSizeOf(db)
	if err != nil {
		return compared{}, fmt.Errorf("compare database: %w", err)
	}
	c.db, c.pageSize = db, size
	if c.out != nil {
		if c.w, err = bufferFor(c.out, db); err != nil {
			return compared{}, fmt.Errorf("compare database: %w", err)
		}
	}
	res, err := c.run(ctx)
	if err != nil {
		return compared{}, fmt.Errorf("compare database: %w", err)
	}
	return res, nil
}

// bufferFor returns a buffer for pages of db, no larger than it: a thousand small
// databases may be compared at once.
func bufferFor(out *os.File, db *wal.DB) (*bufio.Writer, error) {
	size, err := db.FileSize()
	if err != nil {
		return nil, err
	}
	return bufio.NewWriterSize(out, int(min(size, readChunk))), nil
}

// pageSizeOf reads the page size where it is: in the wal-index while the WAL
// holds frames, else in the database header (fileformat2.html section 1.3.2).
func pageSizeOf(db *wal.DB) (uint32, error) {
	h, err := db.Header()
	if err != nil {
		return 0, err
	}
	if h.MaxFrame > 0 {
		return h.PageSize, nil
	}
	var b [2]byte
	if _, err := db.ReadFile(b[:], 16); err != nil {
		return 0, fmt.Errorf("read database header: %w", err)
	}
	if n := uint32(binary.BigEndian.Uint16(b[:])); n != 1 {
		return n, nil
	}
	return 65536, nil
}

// stateOf returns the current header and the size of the database in pages. The
// size of the file is asked for first: if the WAL is empty after that, it is
// the size that belongs to the header. As in SQLite, a part of a page counts.
func (c *comparison) stateOf() (wal.Header, uint32, error) {
	size, err := c.db.FileSize()
	if err != nil {
		return wal.Header{}, 0, err
	}
	h, err := c.db.Header()
	if err != nil {
		return wal.Header{}, 0, err
	}
	if h.MaxFrame > 0 {
		return h, h.PageCount, nil
	}
	return h, uint32((size + int64(c.pageSize) - 1) / int64(c.pageSize)), nil
}

// run reads the file until it has as many pages as the database, then settles
// on the commit whose header it saw last: after the last read of the file.
func (c *comparison) run(ctx context.Context) (compared, error) {
	for {
		h, count, err := c.stateOf()
		if err != nil {
			return compared{}, err
		}
		have := uint32(len(c.sums))
		switch {
		case count == 0:
			return compared{}, errEmpty
		case have < count:
			err = c.readFile(ctx, have+1, count)
		case len(c.stale) > 0:
			err = c.readStale(ctx)
		default:
			res, serr := c.settle(ctx, h, count)
			if !errors.Is(serr, errAwaited) {
				return res, serr
			}
			err = c.pause(ctx)
		}
		if err != nil {
			return compared{}, err
		}
	}
}

// settle lays the pages of the WAL up to h over what was read. errAwaited: a
// checkpointer waits for the pin, and is about to make the WAL small.
func (c *comparison) settle(ctx context.Context, h wal.Header, count uint32) (compared, error) {
	c.shrink(count)
	end := wal.Chain{PageSize: c.pageSize, BigEndian: h.BigEndian, Salt: h.Salt}
	if h.MaxFrame > 0 {
		var err error
		if end, err = c.overlay(ctx, h); err != nil {
			return compared{}, err
		}
	}
	if c.w != nil {
		if err := c.w.Flush(); err != nil {
			return compared{}, err
		}
	}
	return compared{count: count, end: end, change: h.Change, sums: c.sums, kept: c.kept}, nil
}

// shrink drops what was read behind page count.
func (c *comparison) shrink(count uint32) {
	n := min(int(count), len(c.sums))
	c.sums, c.kept = c.sums[:n], c.kept[:n]
}

// errAwaited ends what a checkpointer would have to wait for.
var errAwaited = errors.New("a checkpoint waits for the pin")

// look returns errAwaited where a checkpointer waits.
func (c *comparison) look(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	waits, err := c.awaited()
	if err == nil && waits {
		err = errAwaited
	}
	return err
}

// pause lets others have their turn.
func (c *comparison) pause(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return c.breathe(ctx, c.forget)
}

// forget has the pages that are in the WAL up to h, and were read before, read
// again: they are in the file now. What else was read is as of that commit.
func (c *comparison) forget(h wal.Header) error {
	if h.MaxFrame == 0 {
		return nil
	}
	c.shrink(h.PageCount)
	pages, err := c.db.Pages(0, h.MaxFrame)
	if err != nil {
		return err
	}
	for _, e := range pages {
		if pgno := uint32(e >> 32); int(pgno) <= len(c.sums) && pgno != wal.LockPgno(c.pageSize) {
			c.sums[pgno-1], c.kept[pgno-1] = 0, 0
			c.stale = append(c.stale, pgno)
		}
	}
	slices.Sort(c.stale)
	c.stale = slices.Compact(c.stale)
	return nil
}

// readStale reads pages again. A pause may add some, and the database become
// smaller meanwhile.
func (c *comparison) readStale(ctx context.Context) error {
	buf := make([]byte, c.pageSize)
	for n := 0; len(c.stale) > 0; n += len(buf) {
		if n >= readChunk {
			n = 0
			if err := c.pause(ctx); err != nil {
				return err
			}
			continue
		}
		pgno := c.stale[0]
		c.stale = c.stale[1:]
		if int(pgno) > len(c.sums) {
			continue
		}
		if err := readOrZero(c.db, buf, int64(pgno-1)*int64(c.pageSize)); err != nil {
			return err
		}
		if err := c.put(pgno, buf); err != nil {
			return err
		}
	}
	return nil
}

// readFile reads pages of the database file from first on, up to last unless
// the database has become smaller in a pause.
func (c *comparison) readFile(ctx context.Context, first, last uint32) error {
	per := min(uint32(max(1, readChunk/int(c.pageSize))), last-first+1)
	buf := make([]byte, int(per)*int(c.pageSize))
	for pgno := first; pgno <= last; {
		if err := c.pause(ctx); err != nil {
			return err
		}
		if len(c.sums) < int(pgno-1) {
			return nil
		}
		n := min(per, last-pgno+1)
		b := buf[:n*c.pageSize]
		if err := readOrZero(c.db, b, int64(pgno-1)*int64(c.pageSize)); err != nil {
			return err
		}
		for ; len(b) > 0; b = b[c.pageSize:] {
			c.sums, c.kept = append(c.sums, 0), append(c.kept, 0)
			if err := c.put(pgno, b[:c.pageSize]); err != nil {
				return err
			}
			pgno++
		}
	}
	return nil
}

// put takes page as the content of pgno, over what was there before.
func (c *comparison) put(pgno uint32, page []byte) error {
	if pgno == wal.LockPgno(c.pageSize) {
		return nil
	}
	sum := pagesum.Of(pgno, page)
	if sum == c.sums[pgno-1] {
		return nil
	}
	c.sums[pgno-1], c.kept[pgno-1] = sum, 0
	if c.w == nil || !c.keep(pgno, sum) {
		return nil
	}
	if _, err := c.w.Write(page); err != nil {
		return fmt.Errorf("write patch: %w", err)
	}
	c.size += int64(c.pageSize)
	c.kept[pgno-1] = c.size - int64(c.pageSize) + 1
	return nil
}

// overlay verifies the WAL up to h and puts the last frame of each page.
func (c *comparison) overlay(ctx context.Context, h wal.Header) (wal.Chain, error) {
	chain, err := startOf(c.db, h)
	if err != nil {
		return wal.Chain{}, err
	}
	if chain.PageSize != c.pageSize {
		return wal.Chain{}, fmt.Errorf("wal has pages of %d bytes, the database of %d: %w", chain.PageSize, c.pageSize, wal.ErrChain)
	}
	pages, err := c.verifyFrames(ctx, &chain, h.MaxFrame)
	if err != nil {
		return wal.Chain{}, err
	}
	buf := make([]byte, c.pageSize)
	per := max(1, readChunk/int(c.pageSize))
	for i, e := range wal.LastFrames(pages) {
		if i%per == per-1 {
			if err := c.look(ctx); err != nil {
				return wal.Chain{}, err
			}
		}
		pgno, frame := uint32(e>>32), uint32(e)
		if int(pgno) > len(c.sums) {
			continue
		}
		if err := c.db.ReadPage(frame, c.pageSize, buf); err != nil {
			return wal.Chain{}, err
		}
		if err := c.put(pgno, buf); err != nil {
			return wal.Chain{}, err
		}
	}
	return chain, nil
}

// verifyFrames moves chain to frame last and returns pgno<<32 | frame of all.
func (c *comparison) verifyFrames(ctx context.Context, chain *wal.Chain, last uint32) ([]uint64, error) {
	per := min(max(1, readChunk/chain.FrameSize()), int(last-chain.Frame))
	buf := make([]byte, per*chain.FrameSize())
	pages := make([]uint64, 0, last-chain.Frame)
	for chain.Frame < last {
		if err := c.look(ctx); err != nil {
			return nil, err
		}
		b := buf[:min(per, int(last-chain.Frame))*chain.FrameSize()]
		if _, err := c.db.ReadWAL(b, wal.FrameOffset(chain.Frame+1, chain.PageSize)); err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("read wal: %w", err)
		}
		for ; len(b) > 0; b = b[chain.FrameSize():] {
			h, err := chain.Next(b)
			if err != nil {
				return nil, err
			}
			pages = append(pages, uint64(h.Pgno)<<32|uint64(chain.Frame))
		}
	}
	return pages, nil
}

// patchFile opens an unnamed temporary file in dir.
func patchFile(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "patch-*"+tempSuffix)
	if err != nil {
		return nil, fmt.Errorf("create patch: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(fmt.Errorf("create patch: %w", err), f.Close())
	}
	return f, nil
}

// removePatches removes what a kill between the two steps of patchFile left.
func removePatches(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, "*"+tempSuffix))
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range names {
		errs = append(errs, os.Remove(n))
	}
	return errors.Join(errs...)
}

// changes turns the outcome into what an LTX file will hold: all of it is in patch.
func (c compared) changes(patch *os.File, pageSize uint32) *changes {
	ch := &changes{pageSize: pageSize, count: c.count, end: c.end, patch: patch}
	for i, at := range c.kept {
		if at != 0 {
			ch.pages = append(ch.pages, change{uint32(i + 1), fromPatch, at - 1})
		}
	}
	return ch
}
