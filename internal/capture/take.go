package capture

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ltxstream/ltxstream/internal/pagesum"
	"github.com/ltxstream/ltxstream/internal/wal"
	"github.com/superfly/ltx"
)

// Bounds of what is held: how long it waits for somebody to ask for it, before it
// goes to the spool unasked, and the bytes from which on it does not wait, and
// from which on frames are left in the WAL.
const (
	holdFor   = 100 * time.Millisecond
	holdMost  = 2 << 20
	holdLimit = 8 << 20
)

// flushMost is how much may be held to be made into a file at once: waking the
// spooler takes as long.
const flushMost = 64 << 10

// advance reads the frames up to h. What they change becomes an LTX file where
// one is asked for or wanted, or where it is too much to be held.
func (c *Capture) advance(ctx context.Context, h wal.Header, wanted bool) error {
	now := time.Now()
	switch unread := c.unread(h); {
	case unread:
		c.timing.frames, c.resting = now, false
	case c.held.empty():
		return nil
	}
	if !c.spoolHasRoom() {
		return errSpoolFull
	}
	if c.cfg.PerTransaction || c.large(h) {
		return c.takeAll(ctx, h)
	}
	if c.held.empty() {
		c.timing.held = now
	}
	if err := c.hold(h); err != nil || c.unsure {
		return err
	}
	age := now.Sub(c.timing.held)
	asked := wanted || c.demanded() && (!c.hot || age >= hotSpan) || c.held.size() >= holdMost || age >= holdFor
	switch {
	case !asked:
		return nil
	case !c.hot && !c.spooler.busy && c.held.size() <= flushMost:
		return c.flush()
	}
	return c.write()
}

// large reports whether the unread frames up to h are too many to be held.
func (c *Capture) large(h wal.Header) bool {
	unread := int64(h.MaxFrame-c.held.chain.Frame) * int64(c.held.chain.FrameSize())
	return c.unread(h) && int64(c.held.size())+unread > holdLimit
}

// hold reads the frames up to h.
func (c *Capture) hold(h wal.Header) error {
	if !c.unread(h) {
		return nil
	}
	if err := c.startGeneration(h); err != nil || c.unsure {
		return err
	}
	b := c.held.next()
	if err := b.add(c.db, h.MaxFrame); err != nil {
		return c.doubt(h, err)
	}
	c.held.add(b)
	c.counted(h.Change)
	return nil
}

// startGeneration completes a place at the start of a generation by what the
// header of the -wal file says, once that has been written.
func (c *Capture) startGeneration(h wal.Header) error {
	if c.held.chain.Frame != 0 {
		return nil
	}
	start, err := startOf(c.db, h)
	if err == nil && start.PageSize != c.pageSize {
		err = fmt.Errorf("pages of %d bytes, were %d: %w", start.PageSize, c.pageSize, wal.ErrFormat)
	}
	if err != nil {
		return c.doubt(h, err)
	}
	c.held.turn(start)
	return nil
}

// doubt turns an error about the WAL's chain at h into a comparison, unless the
// WAL was restarted meanwhile: then the next look accounts for it.
func (c *Capture) doubt(h wal.Header, err error) error {
	if !errors.Is(err, wal.ErrChain) && !errors.Is(err, wal.ErrFormat) {
		return err
	}
	if now, herr := c.db.Header(); herr != nil || now.Salt != h.Salt || now.MaxFrame < h.MaxFrame {
		return errNotNow
	}
	c.cfg.Logger.Warn("wal is not what was captured last, comparing", "path", c.cfg.Path, "err", err)
	c.unsure = true
	return nil
}

// complete adds the pages of ch that have no frame, where there are any. The pin
// is held then until ch is written: they are read from the WAL or the file.
func (c *Capture) complete(ch *changes, least uint32) error {
	from := min(least, c.table.Count())
	if !ch.lacks(from) {
		return nil
	}
	if err := c.db.Pin(); err != nil {
		return c.slotsTaken(err)
	}
	h, err := c.db.Header()
	if err != nil {
		return err
	}
	last := ch.end.Frame
	if h.Salt != ch.end.Salt {
		last = 0 // restarted since: all of it is in the file
	}
	return ch.addUnwritten(c.db, from, last)
}

// takeAll captures everything up to h, in as many files as it takes.
func (c *Capture) takeAll(ctx context.Context, h wal.Header) error {
	if err := c.flush(); err != nil {
		return err
	}
	for c.unread(h) && !c.unsure {
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

// take makes one LTX file of frames up to h. Nothing is held.
func (c *Capture) take(h wal.Header) error {
	if c.cfg.PerTransaction || c.large(h) {
		return c.takeFromWAL(h)
	}
	if err := c.hold(h); err != nil || c.unsure {
		return err
	}
	return c.flush()
}

// takeFromWAL makes an LTX file of frames that are not held but read again when
// they are encoded; the pin keeps them there.
func (c *Capture) takeFromWAL(h wal.Header) error {
	if err := c.pinNow(); err != nil || c.unsure {
		return err
	}
	if !c.continues(h) {
		return errNotNow // restarted before it was pinned, and accounted for
	}
	if err := c.startGeneration(h); err != nil || c.unsure {
		return err
	}
	limit := int64(largeGroup)
	if c.cfg.PerTransaction {
		limit = 0
	}
	ch, least, err := c.reader.read(c.db, c.held.chain, h.MaxFrame, limit, func() error { return c.ease(nil) })
	if errors.Is(err, errAwaited) {
		return c.giveWay()
	}
	if err != nil {
		return c.doubt(h, err)
	}
	if err := c.complete(ch, least); err != nil {
		return err
	}
	ch.ease = func() error { return c.ease(ch) }
	if err := c.commit(ch); errors.Is(err, errAwaited) {
		return c.giveWay()
	} else if err != nil {
		return err
	}
	c.heat(ch.commits)
	c.held.begin(ch.end)
	c.change.known = false
	if ch.end.Frame == h.MaxFrame {
		c.counted(h.Change)
	}
	return nil
}

// ease returns errAwaited where a checkpointer waits for the pin while frames are
// read that it keeps. ch is what they become, nil: not known yet. Where each
// transaction is wanted by itself the checkpointer waits, unless ch is the only one.
func (c *Capture) ease(ch *changes) error {
	step := "take"
	if ch == nil {
		step = "read"
	}
	c.cfg.Crash(step)
	h, waits, err := c.checkpointerWaits()
	switch {
	case err != nil || !waits:
		return err
	case c.cfg.PerTransaction && (ch == nil || ch.end.Frame != h.MaxFrame):
		return nil
	}
	return errAwaited
}

// giveWay lets go of frames that are being read: the application comes first.
func (c *Capture) giveWay() error {
	c.cfg.Logger.Info("a checkpoint of the application waits for a large wal to be read: letting it go, comparing afterwards", "path", c.cfg.Path)
	c.unsure = true
	return c.letGo()
}

// commit makes one LTX file of ch: spool, then table, then cursor and position.
func (c *Capture) commit(ch *changes) error {
	pos := c.Pos()
	h := c.enc.header(ch, pos.TXID+1, pos.PostApplyChecksum)
	c.cfg.Crash("spool")
	f, sums, err := c.enc.write(c.spool, c.db, ch, h, func(sums []pagesum.Page) ltx.Checksum {
		if ch.full {
			return totalOf(sums)
		}
		return c.table.After(ch.count, sums)
	})
	if err != nil {
		return err
	}
	c.cfg.Crash("spooled")
	if err := c.record(f, ch, sums); err != nil {
		return errors.Join(err, c.spool.undo(f)) // nobody has seen it
	}
	c.cfg.Crash("table")
	c.setPos(f.Pos())
	c.spool.add(f)
	c.announce()
	c.captured(f, ch)
	return c.saveCursor(ch.end)
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
