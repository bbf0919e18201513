package replica

import (
	"context"
	"sync"

	"github.com/superfly/ltx"
)

// Position is where a replica stands: the position of its content, and the
// stream sequence of the last message of the file that brought it there (0:
// unknown). Zero: no position.
type Position struct {
	ltx.Pos
	Seq uint64
}

// IsZero reports whether p is no position.
func (p Position) IsZero() bool { return p.Pos.IsZero() }

// waiter waits for a TXID.
type waiter struct {
	txid ltx.TXID
	done chan struct{}
}

// progress is the published position and those who wait for it to advance.
type progress struct {
	sync.Mutex
	pos     Position
	waiters []waiter
	closed  bool
}

func (p *progress) get() Position {
	p.Lock()
	defer p.Unlock()
	return p.pos
}

// set publishes pos, which is visible to readers already.
func (p *progress) set(pos Position) {
	p.Lock()
	defer p.Unlock()
	p.pos = pos
	p.wake(func(w waiter) bool { return w.txid <= pos.TXID })
}

func (p *progress) close() (already bool) {
	p.Lock()
	defer p.Unlock()
	already, p.closed = p.closed, true
	p.wake(func(waiter) bool { return true })
	return already
}

func (p *progress) wake(who func(waiter) bool) {
	left := p.waiters[:0]
	for _, w := range p.waiters {
		if who(w) {
			close(w.done)
		} else {
			left = append(left, w)
		}
	}
	clear(p.waiters[len(left):])
	p.waiters = left
}

// enter returns the position if it is at txid already, else a new waiter.
func (p *progress) enter(txid ltx.TXID) (Position, *waiter, error) {
	p.Lock()
	defer p.Unlock()
	switch {
	case !p.pos.IsZero() && p.pos.TXID >= txid:
		return p.pos, nil, nil
	case p.closed:
		return p.pos, nil, ErrClosed
	}
	w := waiter{txid: txid, done: make(chan struct{})}
	p.waiters = append(p.waiters, w)
	return p.pos, &w, nil
}

func (p *progress) leave(w *waiter) {
	p.Lock()
	defer p.Unlock()
	p.wake(func(o waiter) bool { return o.done == w.done })
}

// Position returns the position of what readers see; zero: the replica is empty
// or lost (see Lost).
func (r *Replica) Position() Position { return r.progress.get() }

// WaitFor returns as soon as the replica is at txid or past it: a reader that
// begins after it returned sees that transaction. It returns the position then
// reached, and the cause of ctx or ErrClosed when it never was.
func (r *Replica) WaitFor(ctx context.Context, txid ltx.TXID) (Position, error) {
	for {
		pos, w, err := r.progress.enter(txid)
		if w == nil {
			return pos, err
		}
		select {
		case <-w.done:
		case <-ctx.Done():
			r.progress.leave(w)
			return r.Position(), context.Cause(ctx)
		}
	}
}
