package wal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// BackfillResult tells how far a Backfill came.
type BackfillResult struct {
	MaxFrame   uint32 // last committed frame when it began
	Backfilled uint32 // frames now in the database file
	Reader     int    // READ slot whose readers held it back; 0 and not Done: those of the file itself
}

// Done reports whether every frame that was committed when the backfill began
// is in the database file.
func (r BackfillResult) Done() bool { return r.Backfilled == r.MaxFrame }

const copyChunk = 1 << 20

// Backfill copies committed frames into the database file as far as readers
// allow: a PASSIVE checkpoint (walCheckpoint in wal.c). The caller holds CKPT.
// It waits for nobody and holds back no writer. The WAL is synced before the
// database file is touched, and the file before the backfill is complete:
// frames reported as backfilled outlive a power loss once Done. A cancelled
// context ends it between two chunks, nothing lost.
func (d *DB) Backfill(ctx context.Context) (BackfillResult, error) {
	if !d.locks.holds(Ckpt) {
		return BackfillResult{}, errors.New("backfill: CKPT must be held")
	}
	h, err := d.Header()
	if err != nil {
		return BackfillResult{}, fmt.Errorf("backfill: %w", err)
	}
	res := BackfillResult{MaxFrame: h.MaxFrame, Backfilled: d.Backfilled()}
	if res.Done() {
		return res, nil
	}
	safe, reader, err := d.safeFrame(h.MaxFrame)
	if err != nil {
		return res, fmt.Errorf("backfill: %w", err)
	}
	res.Reader = reader
	if safe <= res.Backfilled {
		return res, nil
	}
	if err := d.locks.try(Read(0), exclusive); err != nil {
		if errors.Is(err, ErrBusy) {
			return res, nil // somebody reads the file itself
		}
		return res, fmt.Errorf("backfill: %w", err)
	}
	defer d.locks.unlock(Read(0))
	if err := d.copyFrames(ctx, h, res.Backfilled, safe); err != nil {
		return res, fmt.Errorf("backfill: %w", err)
	}
	res.Backfilled = d.Backfilled()
	return res, nil
}

// safeFrame moves the marks that nobody uses out of the way, and returns the
// last frame that no reader forbids to copy, with the slot that limits it.
func (d *DB) safeFrame(last uint32) (safe uint32, reader int, err error) {
	safe = last
	for i := 1; i < Readers; i++ {
		mark := d.ReadMark(i)
		if safe <= mark {
			continue
		}
		err := d.locks.try(Read(i), exclusive)
		if errors.Is(err, ErrBusy) {
			safe, reader = mark, i
			continue
		}
		if err != nil {
			return 0, 0, err
		}
		if i == 1 {
			d.setReadMark(i, safe)
		} else {
			d.setReadMark(i, MarkUnused)
		}
		if err := d.locks.unlock(Read(i)); err != nil {
			return 0, 0, err
		}
	}
	return safe, reader, nil
}

// copyFrames copies the frames (from, safe]. READ0 is held exclusively.
func (d *DB) copyFrames(ctx context.Context, h Header, from, safe uint32) error {
	if now, err := d.Header(); err != nil || now.Salt != h.Salt {
		return err // restarted since: there is nothing to do
	}
	if err := d.plausible(h); err != nil {
		return err
	}
	pages, err := d.Pages(from, safe)
	if err != nil {
		return err
	}
	d.index.store(offBackfillAttempted, safe)
	if err := d.sync(d.wal); err != nil {
		return fmt.Errorf("sync wal: %w", err)
	}
	if err := d.copyPages(ctx, h, pages); err != nil {
		return err
	}
	now, err := d.Header()
	if err != nil {
		return err
	}
	if now.MaxFrame == safe {
		if err := d.settleFile(int64(h.PageCount) * int64(h.PageSize)); err != nil {
			return err
		}
	}
	d.index.store(offBackfill, safe)
	return nil
}

// plausible refuses a page count that the file and all frames together cannot
// reach: following it would stretch the file over garbage.
func (d *DB) plausible(h Header) error {
	size, err := d.FileSize()
	if err != nil {
		return err
	}
	if reach := size + 65536 + int64(h.MaxFrame)*int64(h.PageSize); reach < int64(h.PageCount)*int64(h.PageSize) {
		return fmt.Errorf("database of %d pages from a file of %d bytes and %d frames: %w", h.PageCount, size, h.MaxFrame, ErrFormat)
	}
	return nil
}

// copyPages writes pages in page order; neighbours that are neighbours in the
// WAL too cannot share a write, because frame headers lie between them, so runs
// of neighbouring pages are gathered in memory first.
func (d *DB) copyPages(ctx context.Context, h Header, pages []uint64) error {
	size := int(h.PageSize)
	buf := make([]byte, 0, max(min(copyChunk, len(pages)*size), size))
	start, lock := uint32(0), LockPgno(h.PageSize)
	flush := func() error {
		if len(buf) == 0 {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		_, err := d.db.WriteAt(buf, int64(start-1)*int64(size))
		buf = buf[:0]
		return err
	}
	for _, e := range pages {
		pgno, frame := uint32(e>>32), uint32(e)
		if pgno > h.PageCount || pgno == lock {
			continue
		}
		if n := uint32(len(buf) / size); n == 0 || pgno != start+n || len(buf)+size > cap(buf) {
			if err := flush(); err != nil {
				return fmt.Errorf("write database: %w", err)
			}
			start = pgno
		}
		buf = buf[:len(buf)+size]
		if err := d.ReadPage(frame, h.PageSize, buf[len(buf)-size:]); err != nil {
			return err
		}
	}
	if err := flush(); err != nil {
		return fmt.Errorf("write database: %w", err)
	}
	return nil
}

// ReadPage reads the page that frame holds into page. It verifies nothing: the
// frame must be a committed one of a generation that cannot be restarted now.
func (d *DB) ReadPage(frame, pageSize uint32, page []byte) error {
	if _, err := d.wal.ReadAt(page[:pageSize], FrameOffset(frame, pageSize)+FrameHeaderSize); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("read wal frame %d: %w", frame, err)
	}
	return nil
}

// settleFile gives the file the size of the database. That may be more than
// was written: the last pages have no frame when they were free at the commit.
func (d *DB) settleFile(size int64) error {
	now, err := d.FileSize()
	if err != nil {
		return err
	}
	if now != size {
		if err := d.db.Truncate(size); err != nil {
			return fmt.Errorf("truncate database: %w", err)
		}
	}
	return d.SyncFile()
}

// SyncFile makes what was backfilled so far durable. Calling it before the
// last, locked, backfill makes that one short.
func (d *DB) SyncFile() error {
	if err := d.sync(d.db); err != nil {
		return fmt.Errorf("sync database: %w", err)
	}
	return nil
}

// OnSync has f called before each sync of a file: whoever tests durability kills the
// process there, or makes a slow disk of it. Before d is used by anybody else.
func (d *DB) OnSync(f func()) { d.onSync = f }

func (d *DB) sync(f *os.File) error {
	if d.onSync != nil {
		d.onSync()
	}
	return datasync(f)
}

// retryInterrupted calls f again for as long as a signal interrupts it.
func retryInterrupted(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
