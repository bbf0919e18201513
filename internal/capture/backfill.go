package capture

import (
	"context"
	"errors"
	"sync"

	"github.com/ltxstream/ltxstream/internal/wal"
)

// A backfiller backfills in a goroutine of its own: that waits for the disk, and
// capturing must not.
type backfiller struct {
	work chan *wal.DB
	done chan bool // all was backfilled
	busy bool      // owned by the capture loop: the database must stay open
}

func newBackfiller() backfiller {
	return backfiller{work: make(chan *wal.DB), done: make(chan bool, 1)}
}

// start starts the goroutine; stop ends it.
func (b *backfiller) start() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case db := <-b.work:
				b.done <- backfillOnce(ctx, db)
			case <-ctx.Done():
				return
			}
		}
	})
	return func() {
		cancel()
		wg.Wait()
		b.busy = false
	}
}

// begin hands db to the goroutine, which must not be busy. Its report is one
// value on done.
func (b *backfiller) begin(db *wal.DB) {
	b.busy = true
	b.work <- db
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
