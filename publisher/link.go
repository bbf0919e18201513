package publisher

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/ltxstream/ltxstream/internal/stream"
)

// whileConnected returns a context that also ends when the connection is lost,
// with stream.ErrAway as its cause.
func (r *runner) whileConnected(ctx context.Context) (context.Context, func()) {
	return stream.WhileConnected(ctx, r.cfg.JS.Conn())
}

// rest waits, while NATS is away at most until it is back.
func (r *runner) rest(ctx context.Context, d time.Duration) {
	nc := r.cfg.JS.Conn()
	status := nc.StatusChanged(nats.CONNECTED, nats.CLOSED)
	defer nc.RemoveStatusListener(status)
	back := status
	if nc.IsConnected() {
		back = nil
	}
	select {
	case <-ctx.Done():
	case <-back:
	case <-time.After(d):
	}
}
