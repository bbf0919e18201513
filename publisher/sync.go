package publisher

import (
	"context"
	"errors"
	"fmt"

	"github.com/ltxstream/ltxstream/internal/capture"
	"github.com/superfly/ltx"
)

// Sync returns once everything that was committed before the call has been
// acknowledged by the stream, with the position that holds the last of it. The
// error says what it still waited for when ctx or Run ended.
func (p *Publisher) Sync(ctx context.Context) (ltx.Pos, error) {
	ctx, stop := p.whileRunning(ctx)
	defer stop()
	for {
		pos, again, err := p.syncOnce(ctx)
		switch {
		case again:
		case err != nil:
			return ltx.Pos{}, fmt.Errorf("sync %s: %w%s", p.cfg.DB, err, p.obstacle())
		default:
			return pos, nil
		}
	}
}

// whileRunning returns a context that also ends with Run, for its reason.
func (p *Publisher) whileRunning(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		select {
		case <-p.done:
			p.mu.Lock()
			defer p.mu.Unlock()
			cancel(p.mu.ended)
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-watching
	}
}

// syncOnce captures, and waits for the acknowledgement. again: the position was
// given up meanwhile.
func (p *Publisher) syncOnce(ctx context.Context) (pos ltx.Pos, again bool, err error) {
	c, chain, err := p.running(ctx)
	if err != nil {
		return ltx.Pos{}, false, err
	}
	if pos, err = c.Sync(ctx); err != nil { // canceled though ctx is not: capturing stops where the chain begins anew
		return ltx.Pos{}, ctx.Err() == nil && errors.Is(err, context.Canceled), err
	}
	for {
		p.mu.Lock()
		acked, now, changed := p.mu.acked, p.mu.chain, p.mu.changed
		p.mu.Unlock()
		switch {
		case now != chain:
			return ltx.Pos{}, true, nil
		case acked.TXID >= pos.TXID:
			return pos, false, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ltx.Pos{}, false, fmt.Errorf("%s captured, %s acknowledged: %w", pos.TXID, acked.TXID, context.Cause(ctx))
		}
	}
}

// running waits for Run to have opened the database.
func (p *Publisher) running(ctx context.Context) (*capture.Capture, int, error) {
	for {
		p.mu.Lock()
		c, chain, changed := p.mu.capture, p.mu.chain, p.mu.changed
		p.mu.Unlock()
		if c != nil {
			return c, chain, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, 0, context.Cause(ctx)
		}
	}
}

// obstacle says what keeps the publisher from publishing, for an error's end.
func (p *Publisher) obstacle() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.err == "" || p.mu.ended != nil {
		return ""
	}
	return " (" + p.mu.err + ")"
}
