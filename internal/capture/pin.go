package capture

import (
	"errors"
	"time"

	"github.com/ltxstream/ltxstream/internal/wal"
)

// Where the WAL went away before it was read, a comparison follows. So that
// comparisons stay rare, the pin is held then for a time: for twice as long as the
// comparison took, and twice as long each time that it happens again within
// forgetAfter, up to maxCareful times as long.
const (
	minCareful  = 2
	maxCareful  = 64
	forgetAfter = 10 * time.Second
)

// lendFor is how long the pin is let go then for a writer that is about to restart
// the WAL: kept from it, it would append, and checkpoint after every commit.
const lendFor = 10 * time.Millisecond

// care is how careful the capture is with the WAL.
type care struct {
	until  time.Time // the pin is held
	lent   time.Time // … but let go since then; zero: it is not
	since  time.Time // when it was overtaken last
	factor time.Duration
}

func (c *care) wantsPin(now time.Time) bool { return now.Before(c.until) && now.Sub(c.lent) > lendFor }

// overtaken says that a comparison was needed, and how long it took.
func (c *care) overtaken(now time.Time, took time.Duration) {
	c.factor = min(c.factor*2, maxCareful)
	if c.factor == 0 || now.Sub(c.since) > forgetAfter+c.factor*took {
		c.factor = minCareful
	}
	c.since, c.until = now, now.Add(c.factor*took)
}

// pinWanted reports whether the WAL must not be restarted by others: each of its
// transactions is wanted by itself, frames stay in it for now, or its restarts have
// been missed lately.
func (c *Capture) pinWanted() bool {
	return c.cfg.PerTransaction || c.trouble || c.care.wantsPin(time.Now())
}

// settlePin takes the pin where it is wanted and lets go of it where not, or
// where a checkpointer waits for it.
func (c *Capture) settlePin(h wal.Header, contended bool) error {
	switch pinned := c.db.Pinned(); {
	case pinned && contended:
		return c.yield(h)
	case pinned && !c.unread(h) && (!c.pinWanted() || c.lend(h)):
		return c.db.Unpin()
	case !pinned && !contended && c.pinWanted():
		return c.pinNow()
	}
	return nil
}

// lend reports whether it is time to let the next writer restart the WAL: all of it
// is in the database file, and it has reached its soft limit.
func (c *Capture) lend(h wal.Header) bool {
	if c.cfg.PerTransaction || c.trouble || !c.overLimit(h, 1) || c.db.Backfilled() != h.MaxFrame {
		return false
	}
	c.care.lent = time.Now()
	return true
}

// pinNow takes the pin, and makes sure of the place in the WAL that it holds now:
// afterwards c.unsure, or the generation is the one that was read last.
func (c *Capture) pinNow() error {
	if c.db.Pinned() {
		return nil
	}
	if err := c.db.Pin(); err != nil {
		return c.slotsTaken(err)
	}
	c.timing.unpinned = time.Time{}
	h, err := c.db.Header()
	if err != nil {
		return err
	}
	return c.rejoin(h)
}

// slotsTaken turns a pin that is busy into an error only where that lasts: a
// restart by somebody else takes all slots for an instant.
func (c *Capture) slotsTaken(err error) error {
	now := time.Now()
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

// contends reports whether somebody else holds WRITE and CKPT at once: a
// checkpointer that waits for readers, and holds back every writer meanwhile.
func contends(db *wal.DB) (bool, error) {
	for _, l := range []wal.Lock{wal.Ckpt, wal.Write} {
		if h, err := db.Holder(l); err != nil || !h.Held {
			return false, err
		}
	}
	return true, nil
}

// yield lets go of the pin for such a checkpointer, once there is nothing that
// a restart could make us miss.
func (c *Capture) yield(h wal.Header) error {
	now, err := c.db.Header()
	if err != nil || now != h || c.unread(now) || c.db.Backfilled() != now.MaxFrame {
		return nil // a header that changes: the next look sees it
	}
	return c.letGo()
}

// letGo gives up the pin for a checkpointer that waits for it, even where frames
// were not read: then a comparison may have to find what they held.
func (c *Capture) letGo() error {
	if c.db.Pinned() {
		c.count(func(s *Stats) { s.Yields++ })
		if c.cfg.Observer.Yielded != nil {
			c.cfg.Observer.Yielded()
		}
	}
	return c.db.Unpin()
}
