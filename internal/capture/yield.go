package capture

import (
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
	c.spool.release()
	return c.db.Unpin()
}
