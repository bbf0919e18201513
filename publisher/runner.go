package publisher

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/ltxstream/ltxstream/internal/capture"
	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/wire"
	"github.com/superfly/ltx"
)

// The pace of retries.
const (
	minRetry = 20 * time.Millisecond
	maxRetry = 2 * time.Second
)

// runner is one Run: the capture and, session by session, the stream. One
// goroutine owns it.
type runner struct {
	*Publisher
	c  *capture.Capture
	st *stream.Stream

	known    time.Time // timestamp of the newest file when the run began
	begun    bool      // a session has begun: the chain provably goes on
	obeyed   bool      // ForceReseed was
	based    bool      // a session has found the newest full file, or that there is none
	seq      uint64    // last sequence on the database's subjects: what the next message expects
	alone    bool      // nobody else published anything between our last two messages
	sent     ltx.TXID  // everything up to it was acknowledged, or is spanned by what follows
	full     *ltx.Pos  // a full file must follow it, and was not acknowledged yet; nil: none
	partial  partial   // the file whose parts were stored last
	progress bool      // this session published something

	claim    *wire.Claim   // ours, stored; nil: none yet
	attempts []*wire.Claim // ours since, perhaps stored
	anew     bool          // claim anew before anything is published

	buf       []byte // one part of a file on disk
	capturing struct {
		stop context.CancelFunc
		wg   sync.WaitGroup
	}
}

func newRunner(p *Publisher, c *capture.Capture) *runner {
	r := &runner{Publisher: p, c: c}
	if f, ok := r.spooled(max(c.Pos().TXID, 1) - 1); ok {
		r.known = time.UnixMilli(f.Header.Timestamp).Add(p.times.skew)
	}
	return r
}

// run holds sessions until the context ends, then flushes.
func (r *runner) run(ctx context.Context) error {
	defer r.stopCapture()
	if !r.c.Pos().IsZero() && !r.cfg.ForceReseed {
		r.startCapture() // goes on whether or not NATS is there
	}
	if err := r.sessions(ctx); err != nil {
		return err
	}
	return r.flush(context.WithoutCancel(ctx))
}

// sessions returns nil when ctx ended, else the error that does not pass.
func (r *runner) sessions(ctx context.Context) error {
	pause := newBackOff()
	for ctx.Err() == nil {
		r.progress = false
		err := r.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		r.noteError(err)
		if permanent(err) {
			return fmt.Errorf("publish %s: %w", r.cfg.DB, err)
		}
		if r.progress {
			pause.Reset()
		}
		r.rest(ctx, pause.NextBackOff())
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
	if errors.Is(err, ErrFenced) || errors.Is(err, ErrDiverged) || errors.Is(err, ErrAhead) || errors.Is(err, ErrAfter) {
		return true
	}
	return stream.Classify(err) == stream.Permanent
}

// session finds out how the chain goes on, claims the database and publishes
// until something goes wrong.
func (r *runner) session(ctx context.Context) error {
	ctx, stop := r.whileConnected(ctx)
	defer stop()
	if err := r.join(ctx); err != nil {
		return err
	}
	if r.done() {
		r.noteError(nil) // else the next acknowledgement says so
	}
	r.startCapture()
	for {
		f, err := r.next(ctx)
		if err != nil {
			return err
		}
		if err := r.publish(ctx, f); err != nil {
			return err
		}
	}
}

// errLook says that it is time to look at the stream.
var errLook = errors.New("time to look at the stream")

// next waits for the next file. Messages can be lost and streams deleted while
// nobody writes: from time to time it makes sure of the end of the stream. It
// also sees to it that the stream's base does not grow too old.
func (r *runner) next(ctx context.Context) (capture.File, error) {
	look := time.Now().Add(r.times.look)
	for {
		pause := time.Until(look)
		if r.keep() > 0 {
			pause = min(pause, r.refresh())
		}
		wait, cancel := context.WithTimeoutCause(ctx, pause, errLook)
		f, err := r.c.Next(wait, r.sent)
		cancel()
		switch {
		case !errors.Is(err, errLook):
			return f, err
		case time.Now().Before(look):
			continue
		}
		if err := r.atEnd(ctx); err != nil {
			return f, err
		}
		look = time.Now().Add(r.times.look)
	}
}

// atEnd returns an error unless the newest message of the database is the one
// that was left there.
func (r *runner) atEnd(ctx context.Context) error {
	last, err := r.st.LastSeq(ctx, r.cfg.DB)
	if err == nil && last != r.seq {
		err = fmt.Errorf("%w: its last sequence is %d, ours was %d", errMoved, last, r.seq)
	}
	return err
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

// spooled returns the first file beyond after that is in the spool already.
func (r *runner) spooled(after ltx.TXID) (capture.File, bool) {
	f, err := r.c.Next(canceled, after)
	return f, err == nil
}

// canceled is a context in which nothing is waited for.
var canceled = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()
