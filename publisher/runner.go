package publisher

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/ltxstream/ltxstream/internal/capture"
	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/wire"
	"github.com/superfly/ltx"
)

// How long a stop may take to publish what is left, and the pace of retries.
const (
	flushTimeout = 10 * time.Second
	callTimeout  = 5 * time.Second
	minRetry     = 20 * time.Millisecond
	maxRetry     = 2 * time.Second
)

// runner is one Run: the capture and, session by session, the stream.
type runner struct {
	*Publisher
	c      *capture.Capture
	st     *stream.Stream
	seq    uint64   // last sequence on the database's subjects: what the next message expects
	sent   ltx.TXID // everything up to it was acknowledged
	forced bool     // ForceReseed was obeyed

	capturing struct {
		stop context.CancelFunc
		wg   sync.WaitGroup
	}
}

// run holds sessions until the context ends, then flushes.
func (r *runner) run(ctx context.Context) error {
	stopRefresh := r.refreshBase(ctx)
	defer stopRefresh()
	defer r.stopCapture()
	if !r.c.Pos().IsZero() && !r.cfg.ForceReseed {
		r.startCapture() // goes on whether or not NATS is there
	}
	err := r.sessions(ctx)
	if err != nil || ctx.Err() == nil {
		return err
	}
	return r.flush(context.WithoutCancel(ctx))
}

// sessions returns nil when ctx ended, else the error that does not pass.
func (r *runner) sessions(ctx context.Context) error {
	pause := newBackOff()
	for ctx.Err() == nil {
		began := time.Now()
		err := r.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		r.noteError(err)
		if permanent(err) {
			return fmt.Errorf("publish %s: %w", r.cfg.DB, err)
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

func newBackOff() *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = minRetry, maxRetry
	b.Reset()
	return b
}

func permanent(err error) bool {
	if errors.Is(err, ErrFenced) || errors.Is(err, ErrDiverged) {
		return true
	}
	return stream.Classify(err) == stream.Permanent
}

// session finds out how the chain goes on, claims the database and publishes
// until something goes wrong.
func (r *runner) session(ctx context.Context) error {
	if err := r.begin(ctx); err != nil {
		return err
	}
	r.startCapture()
	for {
		f, err := r.c.Next(ctx, r.sent)
		if err != nil {
			return err
		}
		if err := r.publish(ctx, f); err != nil {
			return err
		}
	}
}

// begin leaves r at the head of the stream, with the claim.
func (r *runner) begin(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 6*callTimeout)
	defer cancel()
	var err error
	if r.st, err = stream.Ensure(ctx, r.cfg.JS, r.streamConfig()); err != nil {
		return err
	}
	head, err := r.st.Head(ctx, r.cfg.DB)
	if err != nil {
		return err
	}
	if err := r.fenced(head); err != nil {
		return err
	}
	if err := r.join(ctx, head); err != nil {
		return err
	}
	r.seq = head.LastSeq
	if err := r.claim(ctx, head); err != nil {
		return err
	}
	return r.findBase(ctx, head)
}

// fenced tells whether somebody else has claimed the database since we did.
func (r *runner) fenced(head stream.Head) error {
	r.mu.Lock()
	epoch := r.mu.epoch
	r.mu.Unlock()
	if epoch == 0 || head.Claim == nil || head.Claim.Epoch < epoch || r.ours(head.Claim, epoch) {
		return nil
	}
	return &FencedError{DB: r.cfg.DB, Claim: *head.Claim, Spool: r.spoolDir()}
}

func (r *runner) ours(c *wire.Claim, epoch uint64) bool {
	return c.Epoch == epoch && c.Writer == r.c.Writer() && c.PID == os.Getpid() && c.Host == r.host
}

// join makes the chain of this database go on from the head.
func (r *runner) join(ctx context.Context, head stream.Head) error {
	t := tailOf(head)
	d, at := decide(t, r.c, r.cfg.ForceReseed && !r.forced)
	switch d {
	case goOn:
		r.sent = at.TXID
		r.setAcked(at)
		return r.c.Acked(at.TXID)
	case prove:
		return r.prove(ctx, t)
	default:
		return r.reseed(at)
	}
}

func (r *runner) prove(ctx context.Context, t tail) error {
	r.stopCapture()
	here := r.c.Pos()
	err := r.c.Adopt(ctx, t.pos)
	if errors.Is(err, capture.ErrDiverged) {
		return &DivergedError{DB: r.cfg.DB, Path: r.cfg.Path, Stream: t.pos, Writer: t.writer, Local: here, cause: err}
	}
	if err != nil {
		return err
	}
	r.cfg.Logger.Info("database is at the end of the stream, going on", "txid", t.pos.TXID.String())
	r.sent = t.pos.TXID
	r.setAcked(t.pos)
	return nil
}

func (r *runner) reseed(at ltx.Pos) error {
	r.stopCapture()
	if err := r.c.Reseed(at); err != nil {
		return err
	}
	r.cfg.Logger.Info("a full file follows", "txid", (at.TXID + 1).String())
	r.sent, r.forced = at.TXID, true
	r.setAcked(at)
	return nil
}

// startCapture starts capturing unless it runs.
func (r *runner) startCapture() {
	if r.capturing.stop != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.capturing.stop = cancel
	r.capturing.wg.Go(func() {
		if err := r.c.Run(ctx); err != nil {
			r.noteError(err)
		}
	})
}

// stopCapture lets the capture take what is committed, and ends it.
func (r *runner) stopCapture() {
	if r.capturing.stop == nil {
		return
	}
	r.capturing.stop()
	r.capturing.wg.Wait()
	r.capturing.stop = nil
}

// flush publishes what the spool holds once nothing more is captured.
func (r *runner) flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	r.stopCapture()
	if !r.hasClaimed() {
		return fmt.Errorf("publish %s: this run never reached the stream: %w", r.cfg.DB, ErrUnacknowledged)
	}
	for r.c.Pos().TXID > r.sent {
		err := r.flushOne(ctx)
		if permanent(err) {
			return fmt.Errorf("publish %s: %w", r.cfg.DB, err)
		}
		if ctx.Err() != nil {
			n, bytes := r.c.Stats().SpoolFiles, r.c.Stats().SpoolBytes
			return fmt.Errorf("publish %s: %d files of %d bytes in %s: %w", r.cfg.DB, n, bytes, r.spoolDir(), ErrUnacknowledged)
		}
		if err != nil {
			sleep(ctx, minRetry)
		}
	}
	return nil
}

func (r *runner) hasClaimed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.epoch != 0
}

func (r *runner) flushOne(ctx context.Context) error {
	if r.st == nil || r.seq == 0 {
		if err := r.begin(ctx); err != nil {
			return err
		}
	}
	f, err := r.c.Next(ctx, r.sent)
	if err == nil {
		err = r.publish(ctx, f)
	}
	if err != nil {
		r.st = nil
	}
	return err
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
