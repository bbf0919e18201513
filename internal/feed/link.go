package feed

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go"
)

// errAway is returned when the connection was lost while an answer was waited
// for: it will not come, also when the connection is back.
var errAway = errors.New("connection to nats lost")

// asking calls ask, whose context ends when the connection is lost.
func (f *Feed) asking(ctx context.Context, ask func(context.Context) error) error {
	within, cancel := context.WithCancelCause(ctx)
	lost := f.nc.StatusChanged(nats.RECONNECTING, nats.DISCONNECTED, nats.CLOSED)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-lost:
			cancel(errAway)
		case <-within.Done():
		}
	}()
	err := ask(within)
	away := err != nil && errors.Is(context.Cause(within), errAway)
	cancel(nil)
	<-watched
	f.nc.RemoveStatusListener(lost)
	if away {
		f.located = false
		return errAway
	}
	return err
}
