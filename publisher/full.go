package publisher

import (
	"context"
	"fmt"

	"github.com/superfly/ltx"
)

// Full publishes a file of all pages of the database and returns once the stream
// has acknowledged it, with the position behind it: new readers can begin there,
// and archives whose chain is broken. Calls at the same time share one file.
func (p *Publisher) Full(ctx context.Context) (ltx.Pos, error) {
	ctx, stop := p.whileRunning(ctx)
	defer stop()
	c, _, err := p.running(ctx)
	if err != nil {
		return ltx.Pos{}, fmt.Errorf("publish a full file of %s: %w%s", p.cfg.DB, err, p.obstacle())
	}
	p.mu.Lock()
	before, asked := p.mu.fulls, p.mu.base.asked
	p.mu.base.asked = true
	p.mu.Unlock()
	if !asked {
		c.Full()
	}
	for {
		p.mu.Lock()
		now, acked, changed := p.mu.fulls, p.mu.acked, p.mu.changed
		p.mu.Unlock()
		if now > before {
			return acked, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ltx.Pos{}, fmt.Errorf("publish a full file of %s: %w%s", p.cfg.DB, context.Cause(ctx), p.obstacle())
		}
	}
}
