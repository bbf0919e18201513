package stream

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go"
)

// ErrAway is the cause of a context that [WhileConnected] ended.
var ErrAway = errors.New("connection to nats lost")

// WhileConnected returns a context that also ends when the connection is lost, with
// ErrAway as its cause: answers that were under way will not come, also when the
// connection is back. Call stop.
func WhileConnected(ctx context.Context, nc *nats.Conn) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	lost := nc.StatusChanged(nats.RECONNECTING, nats.DISCONNECTED, nats.CLOSED)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-lost:
			cancel(ErrAway)
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-watched
		nc.RemoveStatusListener(lost)
	}
}
