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
	lendTries   = 4                    // attempts to have captured everything for an instant
	backfillAt  = 8                    // … and we backfill ourselves
	fewToTake   = 64                   // frames left to capture under WRITE
	fewToFill   = 256                  // frames left to backfill under WRITE
	passes      = 8                    // attempts to get that near
	writeWait   = 3 * time.Millisecond // for WRITE
	ckptWait    = 5 * time.Millisecond // for a checkpointer to end, under WRITE
	readersWait = 2 * time.Millisecond // for readers to leave, under WRITE
	minBackoff  = time.Millisecond     // after an attempt that failed, doubling
	maxBackoff  = time.Second
)

// keepBounded lets the WAL be restarted where its writers would do so if it were
// not for the pin: once all of it is backfilled. Else they would go on behind
// it, and checkpoint after every commit. It is the next writer who does it; we
// do only where that does not come about, for writers that do not wait are
// refused while we hold WRITE. Backfilling is left to the application, whose
// checkpoints would fail while we hold CKPT (SQLite does not wait for that
// lock), until the WAL is several times its soft limit.
func (c *Capture) keepBounded(ctx context.Context, h wal.Header) error {
	if c.emptyWanted(h) {
		return c.empty(ctx, h)
	}
	if h.MaxFrame == 0 || c.ckpt.busy || !c.db.Pinned() || time.Now().Before(c.timing.tryCkpt) {
		return c.rest(h)
	}
	ready, err := c.restartable(h)
	if err != nil {
		return err
	}
	for try := 0; try < lendTries && ready && c.overLimit(h, 1) && c.stale(h); try++ {
		if h, err = c.catchUpTo(ctx); err != nil || c.unsure {
			return err
		}
	}
	switch {
	case ready && c.lend(h):
		return nil
	case ready && c.overLimit(h, 1):
		done, err := c.restartWAL(ctx, nil)
		c.backOff(done)
		return err
	case c.overLimit(h, backfillAt):
		c.ckpt.begin(c.db)
		return nil
	default:
		return c.rest(h)
	}
}

// restartable reports whether a restart can succeed now: all is backfilled, or
// a checkpointer that lets writers go on is about to do that, or little is left
// to do and it is time.
func (c *Capture) restartable(h wal.Header) (bool, error) {
	left := h.MaxFrame - c.db.Backfilled()
	if left == 0 || left <= fewToFill && c.overLimit(h, 1) {
		return true, nil
	}
	ckpt, err := c.db.Holder(wal.Ckpt)
	if err != nil || !ckpt.Held {
		return false, err
	}
	write, err := c.db.Holder(wal.Write)
	return !write.Held, err
}

// stale reports whether more was committed since h, or not all of it captured.
func (c *Capture) stale(h wal.Header) bool {
	now, err := c.db.Header()
	return err == nil && (now != h || c.pending(h))
}

// overLimit reports whether the WAL of h has reached n times the soft limit.
func (c *Capture) overLimit(h wal.Header, n int64) bool {
	return int64(h.MaxFrame)*int64(c.chain.FrameSize()) >= c.cfg.SoftWALLimit*n
}

func (c *Capture) backOff(done bool) {
	if done {
		c.timing.backoff = 0
		return
	}
	c.timing.backoff = min(max(c.timing.backoff*2, minBackoff), maxBackoff)
	c.timing.tryCkpt = time.Now().Add(c.timing.backoff)
}

// restartWAL captures what is left, and restarts the WAL under WRITE and CKPT.
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
	return done, err
}

// catchUp captures until little is left to do under WRITE.
func (c *Capture) catchUp(ctx context.Context) (bool, error) {
	for range passes {
		h, err := c.db.Header()
		if err != nil || h.Salt != c.chain.Salt {
			return false, err
		}
		if h.MaxFrame-c.chain.Frame <= fewToTake {
			return true, nil
		}
		if !c.spoolHasRoom() {
			return false, nil
		}
		if err := c.takeAll(ctx, h); err != nil || c.unsure {
			return false, err
		}
	}
	return false, nil
}

// catchUpTo captures until little is left to do, and returns the header then.
func (c *Capture) catchUpTo(ctx context.Context) (wal.Header, error) {
	if _, err := c.catchUp(ctx); err != nil || c.unsure {
		return wal.Header{}, err
	}
	h, err := c.db.Header()
	if err == nil && c.pending(h) && c.spoolHasRoom() {
		err = c.takeAll(ctx, h)
	}
	return h, err
}

// restartLocked holds WRITE: the frames that are there now are the last ones.
func (c *Capture) restartLocked(ctx context.Context, then func() error) (bool, error) {
	h, err := c.db.Header()
	if err != nil || h.Salt != c.chain.Salt || h.MaxFrame == 0 || h.MaxFrame-c.chain.Frame > 4*fewToTake {
		return false, err
	}
	if err := c.takeAll(ctx, h); err != nil || c.unsure || c.pending(h) {
		return false, err
	}
	next := wal.NextGeneration(h)
	start := wal.Chain{PageSize: h.PageSize, BigEndian: h.BigEndian, Salt: next.Salt}
	if err := c.saveCursor(slotNext, start); err != nil {
		return false, err
	}
	if err := c.lockCkpt(ctx); err != nil {
		return false, ignoreBusy(err)
	}
	done, err := c.restartFilled(ctx, h, next)
	if done {
		c.chain = start
		c.counted(next.Change)
	}
	if done && then != nil {
		err = errors.Join(err, then())
	}
	return done, errors.Join(err, c.db.Unlock(wal.Ckpt))
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
	if left := h.MaxFrame - c.db.Backfilled(); left > 0 {
		if left > 2*fewToFill || !c.overLimit(h, 1) {
			return false, nil
		}
		if res, err := c.db.Backfill(ctx); err != nil || !res.Done() {
			return false, err
		}
	}
	c.cfg.crash("restart")
	if ok, err := c.restartWithin(ctx, next, readersWait); !ok {
		return false, err
	}
	c.cfg.crash("restarted")
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
