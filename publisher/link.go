package publisher

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
)

// errAway ends a session when its connection is lost: answers that were under
// way will not come.
var errAway = errors.New("connection to nats lost")

// whileConnected returns a context that also ends when the connection is lost,
// with errAway as its cause.
func (r *runner) whileConnected(ctx context.Context) (context.Context, func()) {
	nc := r.cfg.JS.Conn()
	ctx, cancel := context.WithCancelCause(ctx)
	lost := nc.StatusChanged(nats.RECONNECTING, nats.DISCONNECTED, nats.CLOSED)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-lost:
			cancel(errAway)
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-watched
		nc.RemoveStatusListener(lost)
	}
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
