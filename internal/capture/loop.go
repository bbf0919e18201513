package capture

import (
	"context"
	"errors"
	"time"

	"github.com/ltxstream/ltxstream/internal/wal"
)

// How often the loop looks at the wal-index, besides when it is told to.
const (
	idleAfter     = 10 * time.Second       // without new frames a database is idle
	idlePoll      = 10 * time.Second       // an idle database, of which notices come
	blindPoll     = 2 * time.Second        // … and one of which none come
	quietPoll     = time.Second            // one without new frames for …
	busySpan      = 2 * time.Second        // … so long
	activePoll    = 5 * time.Millisecond   // others: is a checkpointer waiting, is the writer gone?
	yieldPoll     = 100 * time.Microsecond // while the pin is let go for a checkpointer
	eventPoll     = 30 * time.Microsecond  // after a write to the -wal file, doubling
	eventSpan     = 50 * time.Millisecond  // … for so long: the header follows the frames
	hotPoll       = time.Millisecond       // a database that is written to all the time
	hotGroup      = 8                      // commits in one group that make it so
	hotSpan       = 5 * time.Millisecond   // of which one group is made then
	coolGroup     = 16                     // commits in such a group below which it is not any more
	coolAfter     = 10 * time.Millisecond  // without new frames it is not any more
	tornSpan      = 50 * time.Millisecond  // a header torn for longer needs recovery
	identifyEvery = 2 * time.Millisecond   // is it still the same file?
	retryAfter    = 500 * time.Millisecond // after an error
	settlePoll    = 20 * time.Millisecond  // is the file put in place whole?
	pinnedRetry   = 40 * time.Millisecond  // … with the pin, which a checkpointer may wait for
)

// Run captures until the context ends, then captures what is committed by then
// and returns nil. Whatever goes wrong meanwhile can pass (a file that is absent
// may be on its way to be replaced), is tried again, and shows in Stats.
func (c *Capture) Run(ctx context.Context) error {
	c.watch()
	defer c.unwatch()
	defer c.ckpt.start()()
	defer c.spooler.start(c.commit)()
	c.loop(ctx)
	c.drain(context.WithoutCancel(ctx))
	return nil
}

// drain captures what is there, so that a clean stop leaves nothing behind.
func (c *Capture) drain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c.settle()
	h, err := c.look(ctx)
	if err == nil && !c.unsure {
		err = c.takeAll(ctx, h)
	}
	if err == nil && c.unsure {
		err = errors.New("a comparison is due")
	}
	if err != nil {
		c.cfg.Logger.Warn("last transactions were not captured before the stop; the next run finds them", "path", c.cfg.Path, "err", err)
	}
	if c.db == nil { // the file is not there
		return
	}
	if err := c.db.Unpin(); err != nil { // nobody yields until the next Run
		c.cfg.Logger.Warn("pin not let go", "path", c.cfg.Path, "err", err)
	}
}

func (c *Capture) loop(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var waiting waiters
	poll := time.Duration(0)
	for {
		read, err := c.step(ctx, len(waiting) > 0)
		if ctx.Err() != nil {
			waiting.refuse(context.Cause(ctx))
			return
		}
		c.noteError(err)
		if read {
			waiting.read(c.held.added)
		}
		waiting = waiting.answer(c.held.gone, c.Pos())
		timer.Reset(c.nextPoll(err, waiting.unread(), &poll))
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-c.wakeUnlessHot():
			c.timing.event, poll = time.Now(), 0
		case r := <-c.syncs:
			waiting = append(waiting, waiter{reply: r})
		case done := <-c.ckpt.done:
			c.backfilled(done)
		case err := <-c.spooler.done:
			c.written(err)
		}
	}
}

// wakeUnlessHot is what ends a wait early. While a database is written to all the
// time nothing does: larger groups cost everybody less.
func (c *Capture) wakeUnlessHot() <-chan struct{} {
	if c.hot {
		return nil
	}
	return c.wake
}

// nextPoll says how long to wait for an event. unread: somebody waits for frames to
// be read. poll carries the doubling wait after a write to the -wal file.
func (c *Capture) nextPoll(err error, unread bool, poll *time.Duration) time.Duration {
	switch now := time.Now(); {
	case errors.Is(err, errUnsettled):
		return settlePoll
	case errors.Is(err, errSlotsTaken), errors.Is(err, errSpoolFull) && c.db.Pinned():
		return activePoll
	case err != nil && c.db != nil && c.db.Pinned():
		return pinnedRetry
	case err != nil:
		return retryAfter
	case unread:
		return yieldPoll
	case !c.timing.torn.IsZero():
		return time.Millisecond
	case c.db != nil && !c.db.Pinned() && c.pinWanted():
		return yieldPoll
	case c.hot:
		return hotPoll
	case now.Sub(c.timing.event) < eventSpan:
		*poll = min(max(*poll*2, eventPoll), activePoll)
		return *poll
	case now.Sub(c.timing.frames) < busySpan, c.db != nil && c.db.Pinned():
		return activePoll
	case c.watched && c.resting:
		return idlePoll
	case c.watched:
		return quietPoll
	case c.resting:
		return blindPoll
	default:
		return activePoll
	}
}

// step looks at the database once and does what there is to do. wanted: a file of
// what is held is to be made now. read: all that was committed when it began has
// been read.
func (c *Capture) step(ctx context.Context, wanted bool) (read bool, err error) {
	read, err = c.stepOnce(ctx, wanted)
	if errors.Is(err, errNotNow) {
		return false, nil
	}
	return read, err
}

func (c *Capture) stepOnce(ctx context.Context, wanted bool) (read bool, err error) {
	h, err := c.look(ctx)
	if err != nil {
		return false, err
	}
	if !c.unsure && c.outrun(h) {
		c.cfg.Logger.Warn("wal grows faster than it is read: a comparison is less work",
			"path", c.cfg.Path, "wal_frames", h.MaxFrame, "captured", c.held.chain.Frame)
		c.unsure = true
	}
	if c.fullWanted() || c.unsure {
		return c.recapture(ctx)
	}
	contended := false
	if c.db.Pinned() || c.pinWanted() {
		if contended, err = contends(c.db); err != nil {
			return false, err
		}
	}
	defer c.picture(h)
	c.cool()
	err = c.advance(ctx, h, wanted)
	if c.trouble = err != nil && !errors.Is(err, errNotNow); c.trouble {
		return false, errors.Join(err, c.stay(h, err, contended))
	}
	if err != nil || c.unsure {
		return false, err
	}
	if err := c.settlePin(h, contended); err != nil {
		return false, err
	}
	return !c.unread(h), c.keepBounded(ctx, h)
}

// outrun reports whether the writers are faster than the frames are read: so many
// are unread, in a WAL that we would restart, that the database has changed
// several times over. Comparing it is less work then, unless most of the WAL was
// read before, where a reader keeps it from being restarted: a comparison begins at
// its first frame.
func (c *Capture) outrun(h wal.Header) bool {
	if c.cfg.PerTransaction || !c.unread(h) || !c.overLimit(h, forceAt) {
		return false
	}
	frame := int64(c.held.chain.FrameSize())
	read := int64(c.held.chain.Frame) * frame
	return int64(h.MaxFrame)*frame-read > max(4*holdLimit, read+2*int64(h.PageCount)*int64(h.PageSize))
}

// stay keeps the frames that cannot be captured because of err in the WAL, up to a
// limit, unless a checkpointer waits: the application comes first.
func (c *Capture) stay(h wal.Header, err error, contended bool) error {
	switch {
	case c.overLimit(h, giveUpAt):
		c.cfg.Logger.Warn("wal is at its limit and cannot be captured, letting it go: a comparison will follow",
			"path", c.cfg.Path, "wal_frames", h.MaxFrame, "err", err)
		c.unsure = true
		return c.letGo()
	case contended:
		c.cfg.Logger.Debug("letting go of the wal uncaptured, for a checkpointer of the application waits", "path", c.cfg.Path, "err", err)
		return c.letGo()
	}
	if perr := c.pinNow(); !errors.Is(perr, errNotNow) {
		return perr
	}
	return nil
}

func (c *Capture) demanded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.demand
}

func (c *Capture) fullWanted() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.full
}

func (c *Capture) spoolHasRoom() bool {
	_, bytes := c.spool.usage()
	return bytes < c.cfg.SpoolLimit
}

var (
	errNotNow     = errors.New("not now")
	errSpoolFull  = errors.New("spool is full: transactions stay in the wal until the stream takes files again")
	errSlotsTaken = errors.New("readers hold every read slot of the wal: waiting for one to end")
)
