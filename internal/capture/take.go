package capture

import (
	"context"
	"errors"
	"fmt"

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
		start, err := startOf(c.db, h)
		if err != nil {
			return c.doubt(err)
		}
		if start.PageSize != c.table.PageSize() {
			return c.doubt(fmt.Errorf("pages of %d bytes, were %d: %w", start.PageSize, c.table.PageSize(), wal.ErrFormat))
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
	c.heat(ch.commits)
	c.change.known = false
	if c.chain.Frame == h.MaxFrame {
		c.counted(h.Change)
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

// commit makes one LTX file of ch: spool, then table, then cursor and position.
func (c *Capture) commit(ch *changes) error {
	pos := c.Pos()
	h := c.enc.header(ch, pos.TXID+1, pos.PostApplyChecksum)
	c.cfg.crash("spool")
	f, sums, err := c.enc.write(c.spool, c.db, ch, h, func(sums []pagesum.Page) ltx.Checksum {
		if ch.full {
			return totalOf(sums)
		}
		return c.table.After(ch.count, sums)
	})
	if err != nil {
		return err
	}
	c.cfg.crash("spooled")
	if err := c.record(f, ch, sums); err != nil {
		return errors.Join(err, c.spool.undo(f)) // nobody has seen it
	}
	c.cfg.crash("table")
	c.setPos(f.Pos())
	c.spool.add(f)
	c.chain = ch.end
	c.announce()
	c.captured(f, ch)
	return c.saveCursor(slotNow, ch.end)
}

// record enters f into the table. Where that fails the table may describe no
// position any more: a full file follows then.
func (c *Capture) record(f File, ch *changes, sums []pagesum.Page) error {
	if ch.full && (c.table.PageSize() != ch.pageSize || c.table.Count() > 0) {
		c.table.Reset(ch.pageSize)
	}
	if err := c.table.Update(f.Pos(), ch.count, sums); err != nil {
		return fmt.Errorf("record captured pages: %w", err)
	}
	return nil
}

func totalOf(sums []pagesum.Page) ltx.Checksum {
	x := ltx.ChecksumFlag
	for _, s := range sums {
		x ^= s.Sum &^ ltx.ChecksumFlag
	}
	return x
}
