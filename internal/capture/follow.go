package capture

import (
	"context"
	"errors"
	"time"

	"github.com/ltxstream/ltxstream/internal/wal"
)

// look makes sure that the database is the one we know, and that the place up to
// which it was read belongs to its WAL; then it returns the header. Afterwards
// c.unsure tells that the place is unknown. errNotNow: there is nothing to go by
// at the moment, look again soon.
func (c *Capture) look(ctx context.Context) (wal.Header, error) {
	if c.moved() {
		if c.ckpt.busy || c.spooler.busy {
			return wal.Header{}, errNotNow // it still uses the files: its report wakes us
		}
		if err := c.reopen(ctx); err != nil {
			return wal.Header{}, err
		}
	}
	h, err := c.db.Header()
	if errors.Is(err, wal.ErrTorn) || errors.Is(err, wal.ErrFormat) {
		return wal.Header{}, c.recoverIndex(ctx)
	}
	if err != nil {
		return wal.Header{}, err
	}
	c.timing.torn = time.Time{}
	if c.unsure {
		return h, nil // the comparison finds the place
	}
	return h, c.rejoin(h)
}

// moved reports whether the name leads to another file than the one open.
func (c *Capture) moved() bool {
	if c.db == nil {
		return true
	}
	now := time.Now()
	if now.Sub(c.timing.identified) < identifyEvery {
		return false
	}
	c.timing.identified = now
	return c.db.Moved()
}

// recoverIndex lets SQLite recover a wal-index whose writer died in the middle
// of a store, once nobody else has done so.
func (c *Capture) recoverIndex(ctx context.Context) error {
	now := time.Now()
	if c.timing.torn.IsZero() {
		c.timing.torn = now
	}
	if now.Sub(c.timing.torn) < tornSpan {
		return errNotNow
	}
	c.cfg.Logger.Info("wal-index is torn, asking sqlite to recover it", "path", c.cfg.Path)
	c.timing.torn = now
	if err := c.keeper.Touch(ctx); err != nil {
		return err
	}
	return errNotNow
}

// continues reports whether h is a later state of the generation that was read
// last.
func (c *Capture) continues(h wal.Header) bool {
	at := c.held.chain
	return h.Salt == at.Salt && h.MaxFrame >= at.Frame && h.Salt != (wal.Salt{})
}

// rejoin finds out whether the WAL was restarted since it was read last, and
// then whether anything was missed.
func (c *Capture) rejoin(h wal.Header) error {
	if c.continues(h) || h.MaxFrame == 0 && h.Salt == c.held.chain.Salt && c.held.chain.Frame == 0 {
		return nil
	}
	return c.account(h)
}

// account decides whether everything that was committed until h is at hand. What
// was not read of the generation that ended may still be in the file, behind the
// frames of the one of h. The wal-index counts transactions, and restarts do not
// reset the count: if both hold as many as it has grown by, nothing is missing.
// Then h's generation is read from its start.
func (c *Capture) account(h wal.Header) error {
	b := c.held.next()
	before := *b
	tail, err := b.addTail(c.db)
	n := uint32(0)
	if err == nil {
		n, err = commitsIn(c.db, h)
	}
	if now, herr := c.db.Header(); herr != nil || now.Salt != h.Salt {
		b.back(before)
		return errNotNow // restarted again meanwhile
	}
	if grown := h.Change - c.change.n; err != nil || !c.change.known || grown != tail+n {
		c.cfg.Logger.Info("wal was restarted before it was read, comparing", "path", c.cfg.Path, "commits", tail+n, "counted", grown, "err", err)
		b.back(before)
		c.unsure, c.overtaken = true, true
		return nil
	}
	c.held.add(b)
	c.counted(c.change.n + tail)
	c.count(func(s *Stats) { s.Restarts++ })
	c.care.lent = time.Time{}
	return c.beginGeneration(h)
}

func (c *Capture) beginGeneration(h wal.Header) error {
	size := c.held.chain.PageSize
	if h.MaxFrame > 0 {
		size = h.PageSize
	}
	if size != c.pageSize {
		c.unsure = true
		return nil
	}
	c.held.turn(wal.Chain{PageSize: size, BigEndian: h.BigEndian, Salt: h.Salt})
	if !c.held.empty() {
		return nil // the place of the last transaction is not there yet
	}
	return c.saveCursor(c.held.chain)
}

// at says that everything up to chain has been captured.
func (c *Capture) at(chain wal.Chain) {
	c.held.begin(chain)
	c.change, c.unsure = counter{}, false
	c.pageSize = c.table.PageSize()
}

// counted says what the change counter was at the place up to which the WAL was
// read.
func (c *Capture) counted(n uint32) { c.change = counter{n: n, known: true} }

// saveCursor records chain as the place of the captured position.
func (c *Capture) saveCursor(chain wal.Chain) error {
	file, _ := c.db.IDs()
	if err := c.state.cursor.save(placeAt(file, chain, c.Pos().TXID)); err != nil {
		return err
	}
	c.cfg.Crash("cursor")
	return nil
}

// unread reports whether h has frames that were not read.
func (c *Capture) unread(h wal.Header) bool { return h.MaxFrame > c.held.chain.Frame }

// pending reports whether h has frames that are in no LTX file.
func (c *Capture) pending(h wal.Header) bool { return c.unread(h) || !c.held.empty() }

// covers reports whether everything that was committed at h has been captured.
func (c *Capture) covers(h wal.Header) bool { return !c.unsure && !c.pending(h) }
