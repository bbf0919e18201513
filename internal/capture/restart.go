package capture

import (
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/ltxstream/ltxstream/internal/wal"
)

// Bounds of a restart of the WAL. Writers wait while it holds WRITE.
const (
	forceAt     = 8                      // times the soft limit, at which we backfill, and restart once nothing is left
	fillAt      = 12                     // … at which the last frames may be backfilled under WRITE
	giveUpAt    = 16                     // … whatever that takes, and at which frames that cannot be captured are let go
	patience    = 250 * time.Millisecond // after somebody else's checkpoint
	fewToTake   = 64                     // frames left to capture under WRITE
	fewToFill   = 256                    // frames left to backfill under WRITE
	fillWait    = 25 * time.Millisecond  // for that, below giveUpAt
	passes      = 8                      // attempts to get that near
	writeWait   = 3 * time.Millisecond   // for WRITE
	ckptWait    = 5 * time.Millisecond   // for a checkpointer to end, under WRITE
	readersWait = 2 * time.Millisecond   // for readers to leave, under WRITE
	minBackoff  = time.Millisecond       // after an attempt that failed, doubling
	maxBackoff  = time.Second
)

// keepBounded empties the WAL of an application that is gone or idle, and keeps
// that of any other from growing for ever. Up to a limit both checkpoints and
// restarts are left to the application: its checkpoints would fail while we hold
// CKPT (SQLite does not wait for that lock), and writers that do not wait are
// refused while we hold WRITE.
func (c *Capture) keepBounded(ctx context.Context, h wal.Header) error {
	if c.emptyWanted(h) {
		return c.empty(ctx, h)
	}
	if h.MaxFrame == 0 || c.ckpt.busy || !c.overLimit(h, c.restartAt()) || time.Now().Before(c.timing.tryCkpt) {
		return c.rest(h)
	}
	others := c.checkpointed(h)
	switch left := h.MaxFrame - c.db.Backfilled(); {
	case left <= c.fillable(h), others && left <= fewToFill:
		done, err := c.restartWAL(ctx, nil)
		c.backOff(done)
		return err
	case !others && (c.ckpt.rested() || c.overLimit(h, fillAt)):
		c.ckpt.begin(c.db)
	}
	return nil
}

// fillable returns how many frames of h may be left to backfill under WRITE. In the
// end that grows with the WAL: as many are left as are written during a backfill.
func (c *Capture) fillable(h wal.Header) uint32 {
	switch {
	case c.overLimit(h, giveUpAt):
		return max(fewToFill, h.MaxFrame/8)
	case c.overLimit(h, fillAt):
		return fewToFill
	}
	return 0
}

// restartAt is at how many times its soft limit we restart a WAL. One that is
// always pinned is restarted by nobody else.
func (c *Capture) restartAt() int64 {
	if c.cfg.PerTransaction {
		return 1
	}
	return forceAt
}

// checkpointed reports whether somebody else has backfilled or restarted the WAL of
// h a moment ago.
func (c *Capture) checkpointed(h wal.Header) bool {
	now, at := time.Now(), backfill{h.Salt, c.db.Backfilled()}
	if at != c.backfill {
		c.backfill, c.timing.backfill = at, now
	}
	return now.Sub(c.timing.backfill) < patience
}

// backfill is how far the WAL of a generation has been backfilled.
type backfill struct {
	salt   wal.Salt
	frames uint32
}

// rest lets go of what a database on which nothing happens does not need.
func (c *Capture) rest(h wal.Header) error {
	if c.resting || time.Since(c.timing.frames) < idleAfter || c.pending(h) || c.ckpt.busy {
		return nil
	}
	c.resting = true
	c.held.release()
	c.reader.release()
	c.enc.release()
	return c.spool.release()
}

// overLimit reports whether the WAL of h has reached n times the soft limit.
func (c *Capture) overLimit(h wal.Header, n int64) bool {
	return int64(h.MaxFrame)*int64(c.held.chain.FrameSize()) >= c.cfg.SoftWALLimit*n
}

func (c *Capture) backOff(done bool) {
	if done {
		c.timing.backoff = 0
		return
	}
	c.timing.backoff = min(max(c.timing.backoff*2, minBackoff), maxBackoff)
	c.timing.tryCkpt = time.Now().Add(c.timing.backoff)
}

// restartWAL reads what is left, and restarts the WAL under WRITE and CKPT.
// It gives up, without harm, where that would keep writers waiting. Unless nil,
// then runs after a restart, before anybody can write.
func (c *Capture) restartWAL(ctx context.Context, then func() error) (bool, error) {
	if ok, err := c.catchUp(ctx); err != nil || !ok {
		return false, err
	}
	if err := c.db.LockWithin(ctx, wal.Write, writeWait); err != nil {
		return false, ignoreBusy(err)
	}
	locked := time.Now()
	done, err := c.restartLocked(ctx, then)
	err = errors.Join(err, c.db.Unlock(wal.Write))
	c.restarted(done, time.Since(locked))
	if err == nil && done && c.held.empty() {
		err = c.saveCursor(c.held.chain)
	}
	return done, err
}

// catchUp reads until little is left to do under WRITE.
func (c *Capture) catchUp(ctx context.Context) (bool, error) {
	for range passes {
		h, err := c.db.Header()
		if err != nil || h.Salt != c.held.chain.Salt {
			return false, err
		}
		if h.MaxFrame-c.held.chain.Frame <= fewToTake {
			return true, nil
		}
		if !c.spoolHasRoom() {
			return false, nil
		}
		if err := c.advance(ctx, h, false); err != nil || c.unsure {
			return false, err
		}
	}
	return false, nil
}

// restartLocked holds WRITE: the frames that are there now are the last ones.
func (c *Capture) restartLocked(ctx context.Context, then func() error) (bool, error) {
	h, err := c.db.Header()
	if err != nil || h.Salt != c.held.chain.Salt || h.MaxFrame == 0 || h.MaxFrame-c.held.chain.Frame > 4*fewToTake {
		return false, err
	}
	if err := c.hold(h); err != nil || c.unsure || c.unread(h) {
		return false, err
	}
	if c.fill(ctx, h); c.ckpt.busy {
		return false, nil
	}
	next := wal.NextGeneration(h)
	start := wal.Chain{PageSize: h.PageSize, BigEndian: h.BigEndian, Salt: next.Salt}
	if err := c.lockCkpt(ctx); err != nil {
		return false, ignoreBusy(err)
	}
	done, err := c.restartFilled(ctx, h, next)
	if done {
		c.held.turn(start)
		c.counted(next.Change)
	}
	if done && then != nil {
		err = errors.Join(err, then())
	}
	return done, errors.Join(err, c.db.Unlock(wal.Ckpt))
}

// fill has the last frames backfilled while nobody can write. That waits for the
// disk: after fillWait it goes on without WRITE, unless the WAL is at giveUpAt.
func (c *Capture) fill(ctx context.Context, h wal.Header) {
	if left := h.MaxFrame - c.db.Backfilled(); left == 0 || left > 2*c.fillable(h) {
		return
	}
	if !c.overLimit(h, giveUpAt) {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, fillWait)
		defer cancel()
	}
	c.ckpt.begin(c.db)
	select {
	case done := <-c.ckpt.done:
		c.backfilled(done)
	case <-ctx.Done():
	}
}

// lockCkpt takes CKPT, waiting a moment for a checkpointer to end. It does not
// sleep: that checkpointer is often the writer, which wants WRITE right after
// and sleeps for a millisecond where it cannot have it.
func (c *Capture) lockCkpt(ctx context.Context) error {
	for deadline := time.Now().Add(ckptWait); ; {
		err := c.db.TryLock(wal.Ckpt)
		if !errors.Is(err, wal.ErrBusy) || ctx.Err() != nil || time.Now().After(deadline) {
			return err
		}
		for range 10 {
			runtime.Gosched()
		}
	}
}

// restartFilled holds WRITE and CKPT.
func (c *Capture) restartFilled(ctx context.Context, h, next wal.Header) (bool, error) {
	if c.db.Backfilled() != h.MaxFrame {
		return false, nil
	}
	c.cfg.Crash("restart")
	if ok, err := c.restartWithin(ctx, next, readersWait); !ok {
		return false, err
	}
	c.cfg.Crash("restarted")
	return true, nil
}

// restartWithin waits a moment for the readers of the WAL: new ones use the
// database file, for all of the WAL is in it.
func (c *Capture) restartWithin(ctx context.Context, next wal.Header, wait time.Duration) (bool, error) {
	deadline := time.Now().Add(wait)
	for {
		err := c.db.Restart(next)
		if err == nil {
			return true, nil
		}
		if !errors.Is(err, wal.ErrBusy) || ctx.Err() != nil || time.Now().After(deadline) {
			return false, ignoreBusy(err)
		}
		time.Sleep(100 * time.Microsecond)
	}
}

func ignoreBusy(err error) error {
	if errors.Is(err, wal.ErrBusy) {
		return nil
	}
	return err
}
