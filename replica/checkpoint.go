package replica

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/ltxstream/ltxstream/internal/wal"
)

const (
	idleCheckpoint = 2 * time.Second        // after which an uncheckpointed WAL is checkpointed at rest
	blockedPause   = 250 * time.Millisecond // before the next try when a reader lets nothing through
	failedPause    = 2 * time.Second
)

// checkpointer copies the WAL into the database file beside the applier: when
// half the limit waits, and when nothing was applied for a while. It holds CKPT
// only, so neither the applier nor a reader ever waits for it.
type checkpointer struct {
	live     *live
	journal  *journal
	soft     int64
	log      *slog.Logger
	counters *counters
	failing  bool
	isMoved  bool
}

func (c *checkpointer) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.live.dirty:
		}
		if !c.drain(ctx) {
			return
		}
	}
}

// drain checkpoints until nothing is left. false: ctx has ended.
func (c *checkpointer) drain(ctx context.Context) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case <-c.live.hurry:
		case <-time.After(idleCheckpoint):
		}
		left, pause := c.checkpoint(ctx)
		if !left {
			return ctx.Err() == nil
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(pause):
		}
	}
}

// checkpoint runs once, and tells whether something is left and how long not to
// try again.
func (c *checkpointer) checkpoint(ctx context.Context) (left bool, pause time.Duration) {
	c.watchName()
	before := c.live.db.Backfilled()
	res, err := c.pass(ctx)
	switch {
	case errors.Is(err, wal.ErrBusy):
		return true, blockedPause // somebody else checkpoints
	case ctx.Err() != nil:
		return true, 0
	case err != nil:
		if !c.failing {
			c.log.Warn("checkpoint failed, the wal grows", "err", err)
		}
		c.failing = true
		c.counters.checkpointErrors.Add(1)
		return true, failedPause
	case c.failing:
		c.failing = false
		c.log.Info("checkpoint succeeds again")
	}
	if !res.Done() && res.Backfilled == before {
		return true, blockedPause
	}
	return !res.Done(), 0
}

func (c *checkpointer) pass(ctx context.Context) (res wal.BackfillResult, err error) {
	// The journal first: a frame that outlives a power loss has its entry.
	if err := c.journal.sync(); err != nil {
		return res, err
	}
	db := c.live.db
	if err := db.TryLock(wal.Ckpt); err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, db.Unlock(wal.Ckpt)) }()
	if res, err = db.Backfill(ctx); err != nil {
		return res, err
	}
	c.counters.checkpoints.Add(1)
	// So that the last part, which the applier copies itself before a restart,
	// has little to sync.
	return res, db.SyncFile()
}

// watchName notices that the database is no longer the file under its name.
func (c *checkpointer) watchName() {
	if !c.isMoved && c.live.db.Moved() {
		c.isMoved = true
		close(c.live.moved)
		c.log.Error("replica file was moved, removed or replaced")
	}
}

func (l *live) hasMoved() bool {
	select {
	case <-l.moved:
		return true
	default:
		return false
	}
}
