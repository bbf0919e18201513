package subscriber

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/feed"
	"github.com/ltxstream/ltxstream/replica"
)

// apply gives one file to the replica. After an error the feed goes back to
// where the replica is, or the replica is opened or seeded anew.
func (r *runner) apply(ctx context.Context, file *feed.File) error {
	// The writer is kept first: a newer one with an older position only makes
	// a stream that is behind be waited for instead of refused.
	if err := r.st.noteWriter(file.Meta.Writer); err != nil {
		r.sought = false
		return fmt.Errorf("keep writer: %w", err)
	}
	began := time.Now()
	ctx, stop := r.interruptible(ctx)
	defer stop()
	r.setIncoming(file.Incoming(), file.Meta.Max)
	defer r.setIncoming(false, 0)
	err := r.rep.Apply(ctx, file.Section(ctx), replica.ApplyInfo{
		Full: file.Meta.Full, Post: file.Meta.PostPos(), Seq: func() uint64 { return file.LastSeq },
	})
	if err != nil {
		return errors.Join(err, r.afterFailure(file, err))
	}
	r.progress = true
	r.noteApplied(applied{
		max: file.Meta.Max, full: file.Meta.Full, size: file.Meta.Size, timestamp: file.Meta.Timestamp, took: time.Since(began),
	})
	return nil
}

// setIncoming says whether a file that leads to txid is applied while it is
// received.
func (r *runner) setIncoming(on bool, txid ltx.TXID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.incoming = on
	if on {
		r.mu.head = max(r.mu.head, txid)
	}
}

func (r *runner) afterFailure(file *feed.File, err error) error {
	r.sought = false
	switch {
	case errors.Is(err, replica.ErrMoved):
		return r.closeReplica()
	case errors.Is(err, replica.ErrDiverged):
		r.fork = true
	case errors.Is(err, replica.ErrDamaged):
		// It is whole, and the replica's content is what its position says: the
		// file is a lie, and the true one may follow.
		r.feed.Refuse(file, err)
		r.sought = true
	}
	return nil
}
