package feed

import (
	"context"
	"errors"

	"github.com/ltxstream/ltxstream/internal/stream"
)

// asking calls ask, whose context ends when the connection is lost.
func (f *Feed) asking(ctx context.Context, ask func(context.Context) error) error {
	within, stop := stream.WhileConnected(ctx, f.nc)
	err := ask(within)
	away := err != nil && errors.Is(context.Cause(within), stream.ErrAway)
	stop()
	if away {
		f.located = false
		return stream.ErrAway
	}
	return err
}
