package capture

import (
	"context"
	"slices"

	"github.com/superfly/ltx"
)

// Sync captures everything that was committed before the call, and returns the
// position of the file that holds the last of it.
func (c *Capture) Sync(ctx context.Context) (ltx.Pos, error) {
	reply := make(chan syncResult, 1)
	select {
	case c.syncs <- reply:
	case <-ctx.Done():
		return ltx.Pos{}, context.Cause(ctx)
	}
	select {
	case r := <-reply:
		return r.pos, r.err
	case <-ctx.Done():
		return ltx.Pos{}, context.Cause(ctx)
	}
}

type syncResult struct {
	pos ltx.Pos
	err error
}

// A waiter is a call of Sync that was not answered yet.
type waiter struct {
	reply chan syncResult
	read  bool   // what was committed before the call has been read …
	batch uint64 // … and is in batches up to this one
}

type waiters []waiter

// unread reports whether somebody waits for frames to be read.
func (ws waiters) unread() bool {
	return slices.ContainsFunc(ws, func(w waiter) bool { return !w.read })
}

// read says that what was committed before any of the calls is in batches up to n.
func (ws waiters) read(n uint64) {
	for i := range ws {
		if !ws[i].read {
			ws[i].read, ws[i].batch = true, n
		}
	}
}

// answer answers those whose batches, up to gone, are captured at pos, and returns
// the others.
func (ws waiters) answer(gone uint64, pos ltx.Pos) waiters {
	return slices.DeleteFunc(ws, func(w waiter) bool {
		done := w.read && w.batch <= gone
		if done {
			w.reply <- syncResult{pos: pos}
		}
		return done
	})
}

// refuse answers all of them with err.
func (ws waiters) refuse(err error) {
	for _, w := range ws {
		w.reply <- syncResult{err: err}
	}
}
