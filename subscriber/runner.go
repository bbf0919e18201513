package subscriber

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sync/errgroup"

	"github.com/ltxstream/ltxstream/internal/feed"
	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/replica"
)

const (
	retryFirst = 50 * time.Millisecond
	retryMost  = 2 * time.Second
	watchEvery = time.Second
)

// runner is what one Run owns. Its methods belong to one goroutine.
type runner struct {
	*Subscriber
	st   *state
	str  *stream.Stream
	rep  *replica.Replica
	feed *feed.Feed

	sought bool // the feed stands where the replica does
	gap    bool // the stream does not continue the position: a later base is needed
	fork   bool // the position is not of the stream's history: any base will do

	progress bool // the step applied something, or found that there is nothing to apply

	strange bool // changes from outside did not belong to the replica: only a whole base will do
}

// run opens the replica once, and then tries until something permanent.
func (r *runner) run(ctx context.Context) error {
	if err := r.openReplica(ctx); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.retry(ctx) })
	g.Go(func() error { r.watch(ctx); return nil })
	return g.Wait()
}

// retry does step after step; what passes is waited out.
func (r *runner) retry(ctx context.Context) error {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = retryFirst, retryMost
	if r.cfg.JS == nil {
		wait.MaxInterval = max(retryMost, r.cfg.PollInterval)
	}
	for {
		r.progress = false
		err := r.step(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil:
			r.recovered()
			if r.progress { // a seek alone may be followed by the same error, again and again
				wait.Reset()
			}
			continue
		case permanent(err):
			return err
		}
		r.noteError(err)
		r.cfg.Metrics.failed(r.Subscriber, err)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait.NextBackOff()):
		}
	}
}

// permanent reports whether err will not pass by itself.
func permanent(err error) bool {
	if errors.Is(err, ErrLocked) || errors.Is(err, replica.ErrClosed) {
		return true
	}
	return stream.Classify(err) == stream.Permanent
}

// step does the next thing: open what is not open, seek, or one file.
func (r *runner) step(ctx context.Context) error {
	if r.rep == nil {
		return r.openReplica(ctx)
	}
	if r.cfg.JS == nil {
		return r.poll(ctx)
	}
	if r.feed == nil {
		return r.openFeed(ctx)
	}
	if r.gap || r.fork {
		return r.reseed(ctx)
	}
	if !r.sought {
		return r.seek(ctx)
	}
	file, err := r.next(ctx)
	if err != nil {
		return r.broke(err)
	}
	err = r.apply(ctx, file)
	return errors.Join(err, file.Close())
}

func (r *runner) openReplica(ctx context.Context) (err error) {
	r.rep, err = replica.Open(ctx, replica.Config{
		Path: r.cfg.Path, StateDir: r.cfg.StateDir, SoftWALLimit: r.cfg.SoftWALLimit,
		SoleOwner: r.cfg.SoleOwner, Logger: r.cfg.Logger,
	})
	if err != nil {
		return err
	}
	r.setReplica(r.rep)
	pos := r.rep.Position()
	r.cfg.Logger.Info("replica opened", "path", r.cfg.Path, "txid", pos.TXID, "seq", pos.Seq)
	return nil
}

func (r *runner) openFeed(ctx context.Context) (err error) {
	if r.str, err = stream.Open(ctx, r.cfg.JS, r.cfg.Stream); err != nil {
		return err
	}
	dir, err := r.st.spool()
	if err != nil {
		return err
	}
	r.feed, err = feed.New(feed.Config{
		Stream: r.str, JS: r.cfg.JS, DB: r.cfg.DB, Durable: r.st.consumer, SpoolDir: dir,
		MemoryLimit: r.cfg.MemoryLimit, Incoming: true, Writer: r.st.writer, Logger: r.cfg.Logger, OnDamage: r.skipped,
	})
	if err != nil {
		return err
	}
	r.sought = false
	r.setFeed(r.feed)
	return nil
}

func (r *runner) skipped(err error) {
	r.cfg.Metrics.failed(r.Subscriber, err)
	r.noteSkipped(err)
}

func (r *runner) close() error {
	r.setFeed(nil)
	var errs []error
	if r.feed != nil {
		errs = append(errs, r.feed.Close())
		r.feed = nil
	}
	return errors.Join(append(errs, r.closeReplica())...)
}

func (r *runner) closeReplica() error {
	if r.rep == nil {
		return nil
	}
	err := r.rep.Close()
	r.rep = nil
	r.sought = false
	r.setReplica(nil)
	return err
}

// next waits for the next file, and in vain once the replica's name leads to
// another file: that one would be served for as long as nothing new comes.
func (r *runner) next(ctx context.Context) (*feed.File, error) {
	ctx, stop := r.interruptible(ctx)
	defer stop()
	file, err := r.feed.Next(ctx)
	if err != nil && errors.Is(context.Cause(ctx), replica.ErrMoved) {
		return nil, errors.Join(replica.ErrMoved, r.closeReplica())
	}
	return file, err
}

// interruptible returns a context that also ends when the replica's name leads to
// another file.
func (r *runner) interruptible(ctx context.Context) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.interrupt = cancel
	return ctx, func() { cancel(nil) }
}

// watchName interrupts what waits for messages when the replica's name leads to another file.
func (r *runner) watchName() {
	r.mu.Lock()
	rep, interrupt := r.mu.replica, r.mu.interrupt
	r.mu.Unlock()
	if rep != nil && interrupt != nil && rep.Moved() {
		interrupt(replica.ErrMoved)
	}
}

// watch looks around once in a while: at the replica's name, and at the head of
// the stream while the replica is behind.
func (r *runner) watch(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		r.watchName()
		if s := r.headStream(); s != nil {
			if h, err := s.Head(ctx, r.cfg.DB); err == nil && h.Data != nil {
				r.noteHead(h.Data.Meta.Max)
			}
		}
	}
}

// broke sorts the errors of the feed: those of the chain make the next step a
// new seed.
func (r *runner) broke(err error) error {
	if gap, ok := errors.AsType[*feed.GapError](err); ok {
		r.gap = true
		return fmt.Errorf("follow stream: %w", gap)
	}
	if fork, ok := errors.AsType[*feed.ForkError](err); ok {
		r.fork = true
		return fmt.Errorf("follow stream: %w", fork)
	}
	if errors.Is(err, feed.ErrNoBase) {
		r.sought = false
	}
	return fmt.Errorf("follow stream: %w", err)
}
