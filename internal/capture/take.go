package capture

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/ltxstream/ltxstream/internal/pagesum"
	"github.com/ltxstream/ltxstream/internal/wal"
	"github.com/superfly/ltx"
)

// takeAll captures everything up to h, in as many files as it takes.
func (c *Capture) takeAll(ctx context.Context, h wal.Header) error {
	for c.pending(h) && !c.unsure {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !c.spoolHasRoom() {
			return errSpoolFull
		}
		if err := c.take(h); err != nil {
			return err
		}
	}
	return nil
}

// take captures one group of the frames up to h.
func (c *Capture) take(h wal.Header) error {
	if c.chain.Frame == 0 {
		start, err := c.startOf(h)
		if err != nil {
			return c.doubt(err)
		}
		c.chain = start
	}
	limit := int64(largeGroup)
	if c.cfg.PerTransaction {
		limit = 0
	}
	ch, least, err := c.reader.read(c.db, c.chain, h.MaxFrame, limit)
	if err != nil {
		return c.doubt(err)
	}
	if err := ch.addUnwritten(c.db, min(least, c.table.Count())); err != nil {
		return err
	}
	if err := c.commit(ch); err != nil {
		return err
	}
	if c.chain.Frame == h.MaxFrame {
		c.change = h.Change
	}
	return nil
}

// doubt turns an error about the WAL's chain into a comparison.
func (c *Capture) doubt(err error) error {
	if !errors.Is(err, wal.ErrChain) && !errors.Is(err, wal.ErrFormat) {
		return err
	}
	c.cfg.Logger.Warn("wal is not what was captured last, comparing", "path", c.cfg.Path, "err", err)
	c.unsure = true
	return nil
}

// commit makes one LTX file of ch: spool, then table, then position.
func (c *Capture) commit(ch *changes) error {
	pos := c.Pos()
	h := c.enc.header(ch, pos.TXID+1, pos.PostApplyChecksum)
	path := c.spool.path(h.MaxTXID, ch.full)
	f, sums, err := c.enc.write(c.db, ch, h, path, func(sums []pagesum.Page) ltx.Checksum {
		if ch.full {
			return totalOf(sums)
		}
		return c.table.After(ch.count, sums)
	})
	if err != nil {
		return err
	}
	if ch.full && (c.table.PageSize() != ch.pageSize || c.table.Count() > 0) {
		c.table.Reset(ch.pageSize)
	}
	if err := c.table.Update(f.Pos(), ch.count, sums); err != nil {
		return fmt.Errorf("record captured pages: %w", err)
	}
	c.setPos(f.Pos())
	c.setDemand(false)
	c.spool.add(f)
	c.chain = ch.end
	poke(c.arrived)
	c.captured(f, ch)
	return nil
}

func totalOf(sums []pagesum.Page) ltx.Checksum {
	x := ltx.ChecksumFlag
	for _, s := range sums {
		x ^= s.Sum &^ ltx.ChecksumFlag
	}
	return x
}

// recapture compares the database with the table and captures what differs, or,
// where a full file is wanted or needed, all of it.
func (c *Capture) recapture(ctx context.Context) error {
	if err := c.pin(ctx); err != nil {
		return err
	}
	started := time.Now()
	size, err := pageSizeOf(c.db)
	if isEOF(err) {
		return nil // an empty file: nothing was ever committed
	}
	if err != nil {
		return err
	}
	full := c.fullWanted() || c.table.PageSize() != size || c.Pos().IsZero()
	patch, err := patchFile(c.cfg.StateDir)
	if err != nil {
		return err
	}
	defer patch.Close()
	res, err := compare(ctx, c.db, patch, func(pgno uint32, sum ltx.Checksum) bool {
		return full || c.table.Get(pgno) != sum
	})
	if errors.Is(err, errEmpty) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := c.commitCompared(res, patch, size, full); err != nil {
		return err
	}
	c.compared(time.Since(started), int(res.count))
	return nil
}

func (c *Capture) commitCompared(res compared, patch *os.File, size uint32, full bool) error {
	ch := res.changes(patch, size)
	ch.full = full
	if len(ch.pages) > 0 || ch.count != c.table.Count() {
		if err := c.commit(ch); err != nil {
			return err
		}
	}
	c.at(res.end, res.change)
	c.setFull(false)
	return c.state.saveCursor(place{res.end.Salt, res.end.Frame, c.Pos().TXID})
}

func (c *Capture) setFull(v bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.full = v
}
