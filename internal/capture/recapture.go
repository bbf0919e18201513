package capture

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/ltxstream/ltxstream/internal/wal"
	"github.com/superfly/ltx"
)

// recapture compares the database with the table and captures what differs, or,
// where a full file is wanted or needed, all of it. covered is as in step.
func (c *Capture) recapture(ctx context.Context) (covered bool, err error) {
	if !c.spoolHasRoom() {
		c.unsure = true
		return false, errors.Join(errSpoolFull, c.letGo())
	}
	if contended, err := contends(c.db); err != nil || contended {
		c.unsure = true
		return false, errors.Join(err, c.letGo()) // compare once the checkpointer is done
	}
	if err := c.pin(ctx); err != nil {
		return false, err
	}
	c.settle() // what is held will be found again
	size, err := pageSizeOf(c.db)
	if isEOF(err) {
		return true, nil // an empty file: nothing was ever committed
	}
	if err != nil {
		return false, err
	}
	wanted := c.takeFull() // before the file is made: who asks later wants another
	full := wanted || c.table.PageSize() != size || c.Pos().IsZero() || c.table.Pos() != c.Pos()
	if err = c.captureCompared(ctx, size, full); err != nil && wanted {
		c.setFull()
	}
	switch {
	case errors.Is(err, errEmpty):
		return true, nil
	case errors.Is(err, errOvertaken):
		c.cfg.Logger.Info("wal was restarted during the comparison, comparing again", "path", c.cfg.Path)
		c.unsure = true
		return false, nil
	case err != nil:
		return false, errors.Join(err, c.db.Unpin()) // nobody need wait for us until then
	}
	return true, nil
}

func (c *Capture) captureCompared(ctx context.Context, size uint32, full bool) error {
	started := time.Now()
	patch, err := patchFile(c.cfg.StateDir)
	if err != nil {
		return err
	}
	defer patch.Close()
	res, err := compare(ctx, c.db, comparison{
		out:     patch,
		keep:    func(pgno uint32, sum ltx.Checksum) bool { return full || c.table.Get(pgno) != sum },
		breathe: c.stepAside,
		awaited: c.awaited,
	})
	if err != nil {
		return err
	}
	if err := c.commitCompared(res, patch, size, full); err != nil {
		return err
	}
	now := time.Now()
	c.timing.frames = now
	if c.overtaken {
		c.overtaken = false
		c.care.overtaken(now, now.Sub(started))
	}
	c.compared(now.Sub(started), int(res.count))
	return nil
}

func (c *Capture) commitCompared(res compared, patch *os.File, size uint32, full bool) error {
	ch := res.changes(patch, size)
	ch.full = full
	ch.ease = func() error { // nothing of it is in the WAL
		c.cfg.Crash("write")
		if _, waits, err := c.checkpointerWaits(); err != nil || !waits {
			return err
		}
		return c.letGo()
	}
	if len(ch.pages) > 0 || ch.count != c.table.Count() {
		if err := c.commit(ch); err != nil {
			return err
		}
	}
	c.at(res.end)
	c.counted(res.change)
	return c.saveCursor(res.end)
}

func (c *Capture) setFull() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.full = true
}

// takeFull reports whether a full file is wanted, and that it is no more.
func (c *Capture) takeFull() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	wanted := c.mu.full
	c.mu.full = false
	return wanted
}

// errOvertaken is returned where the WAL was restarted during a comparison, and
// what was committed before that may be lost to it.
var errOvertaken = errors.New("wal was restarted during the comparison")

// stepAside is called in the middle of a comparison. For a checkpointer that
// waits for the pin it has forget drop what is newer in the WAL, lets go of the
// pin, and takes it again. What was committed meanwhile is in the WAL then, which
// the comparison will read in the end, or else errOvertaken.
func (c *Capture) stepAside(ctx context.Context, forget func(wal.Header) error) error {
	c.cfg.Crash("compare")
	h, waits, err := c.checkpointerWaits()
	if err != nil || !waits {
		return err
	}
	if err := forget(h); err != nil {
		return err
	}
	if err := c.letGo(); err != nil {
		return err
	}
	if err := c.awaitCheckpointer(ctx, h); err != nil {
		return err
	}
	if err := c.pin(ctx); err != nil {
		return err
	}
	now, err := c.db.Header()
	if err != nil || now.Salt == h.Salt && now.MaxFrame >= h.MaxFrame && h.Salt != (wal.Salt{}) {
		return err
	}
	n, err := commitsIn(c.db, now)
	if err != nil || now.Change-h.Change != n {
		return fmt.Errorf("%d commits of %d: %w", n, now.Change-h.Change, errors.Join(errOvertaken, err))
	}
	return nil
}

// awaited reports whether a checkpointer waits for the pin while the WAL is laid
// over what was read.
func (c *Capture) awaited() (bool, error) {
	c.cfg.Crash("overlay")
	_, waits, err := c.checkpointerWaits()
	return waits, err
}

// checkpointerWaits reports whether all that keeps a checkpointer is the pin: the
// whole WAL, up to the header, is in the database file.
func (c *Capture) checkpointerWaits() (wal.Header, bool, error) {
	if contended, err := contends(c.db); err != nil || !contended {
		return wal.Header{}, false, err
	}
	h, err := c.db.Header()
	return h, err == nil && c.db.Backfilled() == h.MaxFrame, err
}

// awaitCheckpointer waits until the header has changed from h or the
// checkpointer is gone.
func (c *Capture) awaitCheckpointer(ctx context.Context, h wal.Header) error {
	tick := time.NewTicker(yieldPoll)
	defer tick.Stop()
	for {
		now, err := c.db.Header()
		if err != nil || now != h {
			return nil
		}
		if contended, err := contends(c.db); err != nil || !contended {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
