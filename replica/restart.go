package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ltxstream/ltxstream/internal/wal"
)

const (
	restartPause   = 50 * time.Millisecond // how long applying may stop for readers to leave the WAL
	restartAgain   = time.Second           // after a pause in vain, doubled each time
	busyAgain      = 5 * time.Millisecond  // after a checkpoint was found running
	restartAtMost  = 30 * time.Second
	hardFactor     = 4  // times the soft limit: then applying waits for the checkpoint
	truncateFactor = 16 // times the soft limit: then a restart gives the space back
)

var errCheckpointing = errors.New("a checkpoint is running")

// restartPlan is when to try next to restart the WAL.
type restartPlan struct {
	next time.Time
	wait time.Duration
}

func (p *restartPlan) failed() {
	p.wait = min(max(2*p.wait, restartAgain), restartAtMost)
	p.next = time.Now().Add(p.wait)
}

func frameBytes(h wal.Header, frames uint32) int64 {
	return int64(frames) * int64(h.PageSize+wal.FrameHeaderSize)
}

// pending returns how many bytes of the WAL are not in the database file.
func pending(h wal.Header, backfilled uint32) int64 {
	return frameBytes(h, h.MaxFrame-min(backfilled, h.MaxFrame))
}

// restartIfDue restarts the WAL between two transactions when it is past its
// limit and nearly all of it was checkpointed. Readers that follow one another
// without a pause keep it in use; so applying stops for a moment: once all is
// in the database file, new readers read that (slot 0), and the old ones end.
// Under a long reader that is in vain, so it is tried ever less often. An error
// of the checkpoint is no error of the transaction to come: the WAL grows.
func (r *Replica) restartIfDue(ctx context.Context) error {
	l := r.live.live
	h, err := l.db.Header()
	if err != nil {
		return err
	}
	size := frameBytes(h, h.MaxFrame)
	if size <= r.cfg.SoftWALLimit || time.Now().Before(r.apply.restart.next) {
		return nil
	}
	wait := time.Duration(0)
	if size > hardFactor*r.cfg.SoftWALLimit {
		wait = restartPause
	} else if pending(h, l.db.Backfilled()) > r.cfg.SoftWALLimit/2 {
		poke(l.hurry)
		return nil
	}
	switch err := r.tryRestart(ctx, h, wait); {
	case err == nil:
		r.apply.restart = restartPlan{}
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, errCheckpointing):
		r.apply.restart.next = time.Now().Add(busyAgain)
	case errors.Is(err, wal.ErrBusy), errors.Is(err, wal.ErrNotBackfilled):
		r.apply.restart.failed()
		r.counters.restartsBlocked.Add(1)
		r.log().Debug("wal restart held back by readers", "wal_bytes", size, "err", err)
	default:
		r.apply.restart.failed()
		r.log().Warn("wal restart failed", "err", err)
	}
	return nil
}

// tryRestart holds CKPT, waiting up to wait for it, and tries for up to
// restartPause.
func (r *Replica) tryRestart(ctx context.Context, h wal.Header, wait time.Duration) error {
	db := r.live.db
	if err := db.LockWithin(ctx, wal.Ckpt, wait); err != nil {
		return fmt.Errorf("%w: %w", errCheckpointing, err)
	}
	defer db.Unlock(wal.Ckpt)
	began := time.Now()
	defer func() { r.counters.paused(time.Since(began)) }()
	next := wal.NextGeneration(h)
	journaled := false
	err := retryBusy(ctx, restartPause, func() error {
		res, err := db.Backfill(ctx)
		if err != nil {
			return err
		}
		if !res.Done() {
			return wal.ErrBusy
		}
		if !journaled {
			if err := r.journalRestart(next); err != nil {
				return err
			}
			journaled = true
		}
		return db.Restart(next)
	})
	if err != nil {
		return err
	}
	r.cfg.crash("wal restarted")
	r.counters.restarts.Add(1)
	return r.trimWAL(next)
}

// journalRestart says in the journal which position the new generation begins
// with.
func (r *Replica) journalRestart(next wal.Header) error {
	pos := r.Position()
	if pos.IsZero() {
		return nil // a lost replica: there is nothing to resume
	}
	if err := r.apply.journal.compact(r.cfg.journalLimit); err != nil {
		return err
	}
	r.cfg.crash("journal rewritten")
	e := entry{Salt: next.Salt, PageSize: next.PageSize, PageCount: next.PageCount, Pos: pos}
	if err := r.apply.journal.append(e); err != nil {
		return err
	}
	r.cfg.crash("restart journaled")
	return nil
}

// trimWAL gives back the space that one large transaction took.
func (r *Replica) trimWAL(h wal.Header) error {
	n, err := r.live.db.WALSize()
	if err != nil || n <= truncateFactor*r.cfg.SoftWALLimit {
		return err
	}
	if err := r.keepSalts(h.PageSize); err != nil {
		return err
	}
	r.cfg.crash("wal truncated")
	return nil
}

// retryBusy calls f until it does not return ErrBusy, for up to wait.
func retryBusy(ctx context.Context, wait time.Duration, f func() error) error {
	deadline := time.Now().Add(wait)
	for pause := 50 * time.Microsecond; ; pause = min(2*pause, time.Millisecond) {
		err := f()
		if !errors.Is(err, wal.ErrBusy) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}
