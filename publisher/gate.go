package publisher

import "context"

// Gate bounds how many of a process's publishers open their databases at one
// time. Opening is SQLite's C code, which holds a thread while it waits for the
// disk, and malloc keeps memory apart for threads that allocate at once.
type Gate struct{ turns chan struct{} }

// NewGate lets n publishers through at a time; n is at least 1.
func NewGate(n int) *Gate { return &Gate{turns: make(chan struct{}, max(n, 1))} }

// enter waits for a turn; leave ends it. A nil Gate is open.
func (g *Gate) enter(ctx context.Context) (leave func(), err error) {
	if g == nil {
		return func() {}, nil
	}
	select {
	case g.turns <- struct{}{}:
		return func() { <-g.turns }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
