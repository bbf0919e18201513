package subscriber

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/ltxstream/ltxstream/internal/feed"
	"github.com/ltxstream/ltxstream/internal/keeper"
	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/replica"
	"github.com/superfly/ltx"
)

// The pace of retries, and how often the end of the stream is read.
const (
	minRetry  = 20 * time.Millisecond
	maxRetry  = 2 * time.Second
	headEvery = time.Second
)

// runner is one Run: the replica and, session by session, the stream.
type runner struct {
	*Subscriber
	st   *state
	rep  *replica.Replica
	feed *feed.Feed
}

func (r *runner) close() error {
	if r.rep == nil {
		return nil
	}
	r.setReplica(nil)
	err := r.rep.Close()
	r.rep = nil
	return err
}

func (r *runner) run(ctx context.Context) error {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = minRetry, maxRetry
	pause.Reset()
	for ctx.Err() == nil {
		began := time.Now()
		err := r.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		r.noteError(err)
		if permanent(err) {
			return fmt.Errorf("replicate %s: %w", r.cfg.DB, err)
		}
		if time.Since(began) > maxRetry {
			pause.Reset()
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause.NextBackOff()):
		}
	}
	return nil
}

func permanent(err error) bool {
	for _, target := range []error{replica.ErrLocked, keeper.ErrNotDatabase, keeper.ErrReadOnly} {
		if errors.Is(err, target) {
			return true
		}
	}
	return stream.Classify(err) == stream.Permanent
}

// session replicates until something goes wrong.
func (r *runner) session(ctx context.Context) error {
	if err := r.openReplica(ctx); err != nil {
		return err
	}
	st, err := stream.Open(ctx, r.cfg.JS, r.cfg.Stream)
	if err != nil {
		return err
	}
	if err := r.openFeed(st); err != nil {
		return err
	}
	defer r.feed.Close()
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { r.watchHead(ctx, st) })
	defer wg.Wait()
	defer cancel()
	return r.follow(ctx)
}

func (r *runner) openReplica(ctx context.Context) error {
	if r.rep != nil {
		return nil
	}
	rep, err := replica.Open(ctx, replica.Config{
		Path: r.cfg.Path, StateDir: r.cfg.StateDir, SoftWALLimit: r.cfg.SoftWALLimit, SoleOwner: r.cfg.SoleOwner, Logger: r.cfg.Logger,
	})
	if err != nil {
		return err
	}
	if lost := rep.Lost(); lost != nil {
		r.cfg.Logger.Error("replica is at no known position, it will be seeded anew", "err", lost)
		r.cfg.Metrics.failed(r.cfg.DB, "diverged")
	}
	r.rep = rep
	r.setReplica(rep)
	return nil
}

func (r *runner) openFeed(st *stream.Stream) error {
	spool, err := r.st.spool()
	if err != nil {
		return fmt.Errorf("open spool: %w", err)
	}
	r.feed, err = feed.New(feed.Config{
		Stream: st, JS: r.cfg.JS, DB: r.cfg.DB, Durable: string(r.cfg.DB) + "_" + r.st.id,
		SpoolDir: spool, Writer: r.st.lastWriter, Logger: r.cfg.Logger, OnDamage: r.damaged,
	})
	return err
}

// follow seeks the replica's position and applies what comes.
func (r *runner) follow(ctx context.Context) error {
	if err := r.seek(ctx); err != nil {
		return err
	}
	for {
		f, err := r.feed.Next(ctx)
		if isBreak(err) {
			err = r.rebase(ctx, err)
			if err == nil {
				continue
			}
		}
		if err != nil {
			return err
		}
		if err := r.apply(ctx, f); err != nil {
			return err
		}
	}
}

// isBreak tells the errors that another base helps against.
func isBreak(err error) bool {
	if errors.Is(err, feed.ErrNoBase) {
		return true
	}
	if _, ok := errors.AsType[*feed.GapError](err); ok {
		return true
	}
	_, ok := errors.AsType[*feed.ForkError](err)
	return ok
}

func (r *runner) seek(ctx context.Context) error {
	pos := r.rep.Position()
	err := r.feed.Seek(ctx, pos.Pos, pos.Seq)
	if isBreak(err) {
		return r.rebase(ctx, err)
	}
	return err
}

// rebase finds another base after a break: the newest full file of the stream
// when it lies beyond the replica, or is another history's; else what the
// Bootstrapper offers.
func (r *runner) rebase(ctx context.Context, cause error) error {
	pos := r.rep.Position().Pos
	r.cfg.Metrics.failed(r.cfg.DB, kindOf(cause))
	_, fork := errors.AsType[*feed.ForkError](cause)
	if !pos.IsZero() {
		if err := r.fullBeyond(ctx, pos, fork); err == nil || !errors.Is(err, errNoFull) {
			return err
		}
	}
	if r.cfg.Bootstrapper == nil {
		return cause
	}
	b, err := r.cfg.Bootstrapper.Base(ctx, r.cfg.DB, pos)
	if errors.Is(err, ErrNoBase) {
		return cause
	}
	if err != nil {
		return errors.Join(cause, fmt.Errorf("bootstrap: %w", err))
	}
	return r.applyBase(ctx, b)
}

var errNoFull = errors.New("no full file beyond the replica")

// fullBeyond moves the feed to the newest full file, unless that would take the
// replica back.
func (r *runner) fullBeyond(ctx context.Context, pos ltx.Pos, fork bool) error {
	head, err := r.feed.Head(ctx)
	if err != nil {
		return err
	}
	if head.Data == nil {
		return errNoFull
	}
	if err := r.feed.Seek(ctx, ltx.Pos{}, 0); err != nil {
		if errors.Is(err, feed.ErrNoBase) {
			return errNoFull
		}
		return err
	}
	f, err := r.feed.Next(ctx)
	if err != nil {
		return err
	}
	if f.Meta.Max <= pos.TXID && !fork {
		return errors.Join(errNoFull, f.Close())
	}
	r.cfg.Logger.Warn("replica is seeded anew, in place", "have", pos.TXID.String(), "txid", f.Meta.Max.String())
	r.count(func(c *counters) { c.Reseeds++ })
	return r.apply(ctx, f)
}

func (r *runner) applyBase(ctx context.Context, b *Base) (err error) {
	if b.Close != nil {
		defer func() { err = errors.Join(err, b.Close()) }()
	}
	if err := r.rep.Apply(ctx, b.File, replica.ApplyInfo{Full: true, Seq: b.Seq}); err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	pos := r.rep.Position()
	r.cfg.Logger.Info("replica was bootstrapped", "txid", pos.TXID.String())
	r.count(func(c *counters) { c.Reseeds++ })
	return r.feed.Seek(ctx, pos.Pos, pos.Seq)
}

// apply brings the replica to the end of f.
func (r *runner) apply(ctx context.Context, f *feed.File) error {
	defer f.Close()
	started := time.Now()
	err := r.rep.Apply(ctx, f.Section(), replica.ApplyInfo{Full: f.Meta.Full, Seq: f.LastSeq})
	if errors.Is(err, replica.ErrMoved) || errors.Is(err, replica.ErrClosed) {
		return errors.Join(err, r.close()) // the next session opens what is there now
	}
	if err != nil {
		return err
	}
	if w := f.Meta.Writer; w != r.st.lastWriter {
		if err := r.st.setWriter(w); err != nil {
			return fmt.Errorf("record writer: %w", err)
		}
	}
	r.applied(f, time.Since(started))
	return nil
}

// watchHead reads the end of the stream, so that lag is known even when nothing
// arrives.
func (r *runner) watchHead(ctx context.Context, st *stream.Stream) {
	t := time.NewTicker(headEvery)
	defer t.Stop()
	for {
		if head, err := st.Head(ctx, r.cfg.DB); err == nil {
			r.setHead(head)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}
