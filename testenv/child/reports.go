package child

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
)

// Reports keeps the newest of the reports of type T that a child sends, for whoever waits for one. Safe for concurrent use.
type Reports[T any] struct {
	merge func(old, next T) T
	mu    struct {
		sync.Mutex
		last    T
		err     error
		changed chan struct{} // closed and replaced with every report
	}
}

// NewReports returns Reports that begin as first. merge, unless nil, makes the newest report of the one before and the one
// that came.
func NewReports[T any](first T, merge func(old, next T) T) *Reports[T] {
	r := &Reports[T]{merge: merge}
	r.mu.last = first
	r.mu.changed = make(chan struct{})
	return r
}

// Line takes one line of a child's output: pass it to Start.
func (r *Reports[T]) Line(line []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var next T
	if err := json.Unmarshal(line, &next); err != nil {
		r.mu.err = fmt.Errorf("decode report %q: %w", line, err)
		return
	}
	if r.merge != nil {
		next = r.merge(r.mu.last, next)
	}
	r.mu.last = next
	close(r.mu.changed)
	r.mu.changed = make(chan struct{})
}

// Last returns the newest report, and an error when one could not be decoded.
func (r *Reports[T]) Last() (T, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.last, r.mu.err
}

// WaitFor returns once cond holds for a report. cond may refuse with an error, which ends the wait; so does the end of p or ctx.
func (r *Reports[T]) WaitFor(ctx context.Context, p *Process, cond func(T) (bool, error)) (T, error) {
	for {
		r.mu.Lock()
		last, changed := r.mu.last, r.mu.changed
		r.mu.Unlock()
		if ok, err := cond(last); ok || err != nil {
			return last, err
		}
		select {
		case <-changed:
		case <-p.Done():
			return r.atEnd(p, cond)
		case <-ctx.Done():
			return last, context.Cause(ctx)
		}
	}
}

func (r *Reports[T]) atEnd(p *Process, cond func(T) (bool, error)) (T, error) {
	last, err := r.Last()
	if err != nil {
		return last, err
	}
	if ok, err := cond(last); ok || err != nil {
		return last, err
	}
	if err := p.Err(); err != nil {
		return last, err
	}
	return last, fmt.Errorf("child %d ended before the report waited for", p.PID())
}
