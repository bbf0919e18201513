package capture

import (
	"context"
	"errors"
	"time"

	"github.com/ltxstream/ltxstream/internal/wal"
)

// look makes sure that the database is the one we know, and pinned unless there
// is a reason, and that the captured place belongs to its WAL; then it returns
// the header. Afterwards c.unsure tells that the place is unknown. errNotNow:
// there is nothing to go by at the moment, look again soon.
func (c *Capture) look(ctx context.Context) (wal.Header, error) {
	if c.moved() {
		if c.ckpt.busy {
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
	switch {
	case c.unsure:
		return h, nil // the comparison pins
	case c.db.Pinned():
		return h, c.follow(h)
	default:
		return c.repin(h)
	}
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

// continues reports whether h is a later state of the captured generation.
func (c *Capture) continues(h wal.Header) bool {
	return h.Salt == c.chain.Salt && h.MaxFrame >= c.chain.Frame
}

// follow handles a changed generation under the pin. Only the first writer of an
// empty WAL can have changed the salts then: nothing was captured of the
// generation, and nothing was missed.
func (c *Capture) follow(h wal.Header) error {
	if c.continues(h) {
		return nil
	}
	if c.chain.Frame == 0 {
		return c.beginGeneration(h)
	}
	c.cfg.Logger.Info("wal was recovered under the pin, comparing", "path", c.cfg.Path)
	c.unsure = true
	return nil
}

func (c *Capture) beginGeneration(h wal.Header) error {
	size := c.chain.PageSize
	if h.MaxFrame > 0 {
		size = h.PageSize
	}
	if size != c.table.PageSize() {
		c.unsure = true
		return nil
	}
	c.chain = wal.Chain{PageSize: size, BigEndian: h.BigEndian, Salt: h.Salt}
	return c.saveCursor(slotNow, c.chain)
}

// repin takes the pin again, when it is time, and finds out whether anything was
// missed meanwhile.
func (c *Capture) repin(h wal.Header) (wal.Header, error) {
	same := h.Salt == c.chain.Salt && h.MaxFrame == c.chain.Frame && c.isCount(h)
	if same && c.resting && (!c.lent() || time.Since(c.timing.lent) < lendMost) {
		return h, nil
	}
	if same || !c.spoolHasRoom() {
		if contended, err := contended(c.db); err != nil || contended {
			return h, err // the checkpointer that we let go for is not done
		}
	}
	if err := c.db.Pin(); err != nil {
		return h, c.slotsTaken(err)
	}
	c.resting, c.timing.unpinned = false, time.Time{}
	h, err := c.db.Header()
	if err != nil || c.continues(h) && h.Salt != (wal.Salt{}) {
		c.returned(false)
		return h, err
	}
	err = c.account(h)
	c.returned(true)
	return h, err
}

// slotsTaken turns a pin that is busy into an error only where that lasts: a
// restart by somebody else takes all slots for an instant.
func (c *Capture) slotsTaken(err error) error {
	now := time.Now()
	c.resting = false
	if c.timing.unpinned.IsZero() {
		c.timing.unpinned = now
	}
	switch {
	case !errors.Is(err, wal.ErrBusy):
		return err
	case now.Sub(c.timing.unpinned) < time.Second:
		return errNotNow
	default:
		return errSlotsTaken
	}
}

// account decides whether a generation that began while the pin was not held
// holds everything that was committed since: the wal-index counts transactions,
// and restarts do not reset the count. If the generation holds as many commits
// as the count has grown by, nothing is missing and capture goes on at its start.
func (c *Capture) account(h wal.Header) error {
	n, err := commitsIn(c.db, h)
	if err != nil || !c.change.known || h.Change-c.change.n != n {
		c.cfg.Logger.Info("wal was restarted meanwhile, comparing", "path", c.cfg.Path, "commits", n, "counted", h.Change-c.change.n, "err", err)
		c.unsure = true
		return nil
	}
	return c.beginGeneration(h)
}

// at says that everything up to chain has been captured.
func (c *Capture) at(chain wal.Chain) {
	c.chain, c.change, c.unsure = chain, counter{}, false
}

// counted says what the change counter was at the captured place.
func (c *Capture) counted(n uint32) { c.change = counter{n: n, known: true} }

// isCount reports whether h can be at the captured place by its change counter.
func (c *Capture) isCount(h wal.Header) bool { return !c.change.known || c.change.n == h.Change }

// saveCursor records chain as the place of the captured position.
func (c *Capture) saveCursor(slot int, chain wal.Chain) error {
	file, _ := c.db.IDs()
	if err := c.state.cursor.save(slot, placeAt(file, chain, c.Pos().TXID)); err != nil {
		return err
	}
	c.cfg.crash("cursor")
	return nil
}

// pending reports whether h has frames that were not captured.
func (c *Capture) pending(h wal.Header) bool { return h.MaxFrame > c.chain.Frame }

// covers reports whether everything that was committed at h has been captured.
func (c *Capture) covers(h wal.Header) bool { return !c.unsure && !c.pending(h) }
