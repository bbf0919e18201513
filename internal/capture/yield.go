package capture

import (
	"errors"
	"time"

	"github.com/ltxstream/ltxstream/internal/wal"
)

// contended reports whether somebody else holds WRITE and CKPT at once: a
// checkpointer that waits for readers, and holds back every writer meanwhile.
func contended(db *wal.DB) (bool, error) {
	for _, l := range []wal.Lock{wal.Ckpt, wal.Write} {
		if h, err := db.Holder(l); err != nil || !h.Held {
			return false, err
		}
	}
	return true, nil
}

// yield lets go of the pin for such a checkpointer, once there is nothing that
// a restart could make us miss.
func (c *Capture) yield(h wal.Header) bool {
	now, err := c.db.Header()
	if !c.db.Pinned() || err != nil || now != h || c.pending(now) || c.db.Backfilled() != now.MaxFrame {
		return false
	}
	c.counted(now.Change)
	if err := c.db.Unpin(); err != nil {
		return false
	}
	c.yielded()
	return true
}

// A pin that was lent costs a comparison where it goes wrong, so that of a large
// database is not lent, nor any again soon after that.
const (
	lendLimit  = 1 << 30 // bytes of the database
	lendSpan   = 5 * time.Millisecond
	lendMost   = 20 * time.Millisecond
	lendBanned = 10 * time.Second
)

// lend lets go of the pin so that the next writer restarts the WAL by itself:
// then nobody ever waits for a lock of ours. All is captured, and backfilled or
// about to be. Should the WAL be restarted twice before we look again, the
// change counter tells.
func (c *Capture) lend(h wal.Header) bool {
	now := time.Now()
	if int64(h.PageCount)*int64(h.PageSize) > lendLimit || now.Before(c.timing.lendAgain) {
		return false
	}
	live, err := c.db.Header()
	if err != nil || live != h || c.pending(h) {
		return false
	}
	c.counted(h.Change)
	if err := c.db.Unpin(); err != nil {
		return false
	}
	c.resting, c.timing.lent = true, now
	return true
}

func (c *Capture) lent() bool { return !c.timing.lent.IsZero() }

// returned says how a lent pin came back: did a restart come, and was it clean?
func (c *Capture) returned(restarted bool) {
	if !c.lent() {
		return
	}
	c.timing.lent = time.Time{}
	switch {
	case c.unsure:
		c.timing.lendAgain = time.Now().Add(lendBanned)
	case restarted:
		c.count(func(s *Stats) { s.Restarts++ })
	}
}

// letGo gives up the pin although transactions are not captured, where nothing
// can be captured and a checkpointer would wait for it: a comparison will find
// them.
func (c *Capture) letGo() error {
	if c.db.Pinned() {
		c.yielded()
	}
	return c.db.Unpin()
}

func (c *Capture) yielded() {
	c.count(func(s *Stats) { s.Yields++ })
	if c.cfg.Observer.Yielded != nil {
		c.cfg.Observer.Yielded()
	}
}

// rest lets go of the pin of a database on which nothing happens, so that
// whoever wants to checkpoint it need not wait for us.
func (c *Capture) rest(h wal.Header) error {
	if time.Since(c.timing.frames) < idleAfter || c.pending(h) || !c.db.Pinned() || c.ckpt.busy {
		return nil
	}
	c.counted(h.Change)
	c.resting = true
	c.reader.release()
	c.enc.release()
	return errors.Join(c.spool.release(), c.db.Unpin())
}
