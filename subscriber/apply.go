package subscriber

import (
	"context"
	"errors"
	"fmt"
	"time"

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
	err := r.rep.Apply(ctx, file.Section(), replica.ApplyInfo{Full: file.Meta.Full, Seq: file.LastSeq})
	if err != nil {
		return errors.Join(err, r.afterFailure(file, err))
	}
	r.noteApplied(file, time.Since(began))
	return nil
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
