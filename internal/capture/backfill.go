package capture

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/ltxstream/ltxstream/internal/wal"
)

// A backfiller backfills in goroutines, one at a time: that waits for the disk,
// and capturing must not. An idle database has none.
type backfiller struct {
	done         chan bool     // all was backfilled
	busy         bool          // owned by the capture loop: the database must stay open
	spawn        func(*wal.DB) // between start and stop
	began, ended time.Time     // the last time
}

func newBackfiller() backfiller { return backfiller{done: make(chan bool, 1)} }

// start makes begin possible; stop ends what it began.
func (b *backfiller) start() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	b.spawn = func(db *wal.DB) {
		wg.Go(func() { b.done <- backfillOnce(ctx, db) })
	}
	return func() {
		cancel()
		wg.Wait()
		select {
		case <-b.done: // nobody waits for it any more
		default:
		}
		b.busy = false
	}
}

// begin backfills db, unless it is busy. Its report is one value on done.
func (b *backfiller) begin(db *wal.DB) {
	b.busy, b.began = true, time.Now()
	b.spawn(db)
}

// rested reports whether the disk, and CKPT, have been left to others for as long as
// the last backfill took.
func (b *backfiller) rested() bool { return time.Since(b.ended) >= b.ended.Sub(b.began) }

// backfilled takes the backfiller's report.
func (c *Capture) backfilled(done bool) {
	c.ckpt.busy, c.ckpt.ended = false, time.Now()
	c.backfill.frames = c.db.Backfilled() // that was not somebody else
	c.backOff(done)
}

// backfillOnce backfills as far as readers allow, unless somebody else is at it,
// and reports whether that was all. What goes wrong shows in the restart.
func backfillOnce(ctx context.Context, db *wal.DB) bool {
	if err := db.TryLock(wal.Ckpt); err != nil {
		return false
	}
	res, err := db.Backfill(ctx)
	if err == nil {
		err = db.SyncFile()
	}
	err = errors.Join(err, db.Unlock(wal.Ckpt))
	return err == nil && res.Done()
}
