package subscriber

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/replica"
)

// poll applies what is behind the position outside of any stream, and waits
// where nothing is.
func (r *runner) poll(parent context.Context) error {
	ctx, stop := r.interruptible(parent)
	defer stop()
	err := r.pollOnce(ctx)
	if err != nil && errors.Is(context.Cause(ctx), replica.ErrMoved) {
		return errors.Join(replica.ErrMoved, r.closeReplica())
	}
	return err
}

func (r *runner) pollOnce(ctx context.Context) error {
	due := time.After(r.cfg.PollInterval)
	pos := r.rep.Position().Pos
	after := pos
	if r.strange {
		after = ltx.Pos{}
	}
	base, err := r.cfg.Bootstrapper.Base(ctx, r.cfg.DB, after)
	r.noteAnswer(err == nil || errors.Is(err, ErrNoBase))
	switch {
	case errors.Is(err, ErrUpToDate):
		r.recovered()
		r.progress = true
		r.setState(StateLive)
		return wait(ctx, due)
	case errors.Is(err, ErrNoBase) && pos.IsZero():
		r.setState(StateWaiting)
	case errors.Is(err, ErrNoBase):
		r.setState(StateBroken)
	}
	if err != nil {
		return fmt.Errorf("follow archive: %w", err)
	}
	r.noteHead(base.Max)
	if base.Full && !pos.IsZero() {
		r.setState(StateReseeding)
		r.cfg.Logger.Warn("seeding the replica anew in place", "from", pos, "to", base.Max)
	}
	began := time.Now()
	if err := r.applyBase(ctx, base); err != nil {
		return err
	}
	r.noteApplied(applied{max: base.Max, full: base.Full, size: base.File.Size(), timestamp: base.Timestamp, took: time.Since(began)})
	if base.Full && !pos.IsZero() {
		r.bump(func(c *counters) { c.Reseeds++ })
	}
	if base.More {
		return nil
	}
	r.recovered()
	return wait(ctx, due)
}

// wait waits until it is time to look again.
func wait(ctx context.Context, due <-chan time.Time) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-due:
		return nil
	}
}

func (s *Subscriber) noteAnswer(ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.answered = ok
}
