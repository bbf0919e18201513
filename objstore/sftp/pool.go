package sftp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"github.com/ltxstream/ltxstream/objstore"
)

// pool has the one connection, and waits for what runs on it.
type pool struct {
	cfg  Config
	ctx  context.Context // of dialing; ends with the pool
	stop context.CancelFunc
	runs sync.WaitGroup // every goroutine of the store

	mu struct {
		sync.Mutex
		closed bool
		cur    *dialed // nil: none yet, or it has failed
	}
}

// dialed is a connection, or the attempt to get one.
type dialed struct {
	done chan struct{} // closed when link or err is set
	link *link
	err  error
}

func newPool(cfg Config) *pool {
	p := &pool{cfg: cfg}
	p.ctx, p.stop = context.WithCancel(context.Background())
	return p
}

var errClosed = fmt.Errorf("sftp store: %w", fs.ErrClosed)

// spawn runs f in a goroutine that close waits for. It says no after close.
func (p *pool) spawn(f func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.mu.closed {
		p.runs.Go(f)
	}
	return !p.mu.closed
}

// get returns the connection. All who come while it is being made wait for the
// same attempt, which outlives the one who began it.
func (p *pool) get(ctx context.Context) (*link, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	p.mu.Lock()
	if p.mu.closed {
		p.mu.Unlock()
		return nil, errClosed
	}
	if p.mu.cur == nil || p.mu.cur.lost() {
		d := &dialed{done: make(chan struct{})}
		p.mu.cur = d
		p.runs.Go(func() { p.dial(d) })
	}
	d := p.mu.cur
	p.mu.Unlock()
	select {
	case <-d.done:
		return d.link, d.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (p *pool) dial(d *dialed) {
	d.link, d.err = p.connect()
	close(d.done)
}

// lost says that the next caller has to connect anew.
func (d *dialed) lost() bool {
	select {
	case <-d.done:
	default:
		return false
	}
	return d.err != nil || d.link.ended()
}

func (p *pool) close() {
	p.mu.Lock()
	p.mu.closed = true
	d := p.mu.cur
	p.mu.Unlock()
	p.stop()
	if d != nil {
		<-d.done
		if d.link != nil {
			d.link.fail(errClosed)
		}
	}
	p.runs.Wait()
}

// run does one call on the connection l. When ctx ends first it returns and the
// call ends by itself: with its answer, which late gets, or with the connection.
func run[T any](ctx context.Context, l *link, call func() (T, error), late func(T)) (T, error) {
	type answer struct {
		v   T
		err error
	}
	var zero T
	if ctx.Err() != nil {
		return zero, context.Cause(ctx)
	}
	answers := make(chan answer)
	abandoned := make(chan struct{})
	if !l.pool.spawn(func() {
		v, err := call()
		err = l.explain(err)
		select {
		case <-abandoned:
			if err == nil && late != nil {
				late(v)
			}
		case answers <- answer{v, err}:
		}
	}) {
		return zero, errClosed
	}
	select {
	case a := <-answers:
		return a.v, a.err
	case <-ctx.Done():
		close(abandoned)
		return zero, context.Cause(ctx)
	}
}

// errSilent ends a connection.
var errSilent = objstore.Transient(errors.New("the server does not answer"))
