package publisher

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// How long a stop may take: to capture what is committed and publish it, and
// to wait for a NATS that is away.
const (
	flushTimeout = 10 * time.Second
	awayTimeout  = 2 * time.Second
)

// flush captures what was committed by now and publishes what the spool holds.
func (r *runner) flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	if r.capturing.stop != nil {
		if _, err := r.c.Sync(ctx); err != nil {
			return r.unacknowledged(err)
		}
	}
	r.stopCapture()
	for started := time.Now(); !r.done(); {
		err := r.flushOne(ctx)
		switch away := !r.begun || !r.cfg.JS.Conn().IsConnected(); {
		case err == nil:
		case permanent(err):
			return fmt.Errorf("publish %s: %w", r.cfg.DB, err)
		case ctx.Err() != nil, away && time.Since(started) > awayTimeout:
			return r.unacknowledged(err)
		default:
			r.st = nil
			r.rest(ctx, minRetry)
		}
	}
	return nil
}

// done reports whether the stream holds all that was captured, and that was
// found out.
func (r *runner) done() bool {
	return r.begun && r.full == nil && r.c.Pos().TXID <= r.sent
}

func (r *runner) flushOne(ctx context.Context) error {
	ctx, stop := r.whileConnected(ctx)
	defer stop()
	if r.st == nil || !r.begun {
		if err := r.join(ctx); err != nil || r.done() {
			return err
		}
	}
	if r.full != nil { // it is captured only now
		r.startCapture()
		defer r.stopCapture()
	}
	f, err := r.c.Next(ctx, r.sent)
	if err != nil {
		return err
	}
	return r.publish(ctx, f)
}

func (r *runner) unacknowledged(cause error) error {
	s := r.c.Stats()
	return fmt.Errorf("publish %s: %d files of %d bytes in %s: %w", r.cfg.DB, s.SpoolFiles, s.SpoolBytes, r.spoolDir(),
		errors.Join(ErrUnacknowledged, cause))
}
