package publisher

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/superfly/ltx"
)

// claimed is the position that our claim states: where the chain goes on.
func (r *runner) claimed() ltx.Pos {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.acked
}

// findBase finds the newest full file of the stream: new readers begin there.
// Where there is none that can be read, a full file is asked for.
func (r *runner) findBase(ctx context.Context, head stream.Head) error {
	b, err := r.baseOf(ctx, head)
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.mu.base = b
	r.mu.Unlock()
	if b.seq == 0 && head.Data != nil && r.cfg.Retain > 0 {
		r.c.Full()
	}
	return nil
}

func (r *runner) baseOf(ctx context.Context, head stream.Head) (base, error) {
	if head.Data == nil {
		return base{}, nil
	}
	m := head.Data.Meta
	seq := m.Base
	if m.Full {
		var err error
		if seq, err = r.st.SeqOf(ctx, r.cfg.DB, m.Max); err != nil {
			return base{}, ignoreNotFound(err)
		}
	}
	if seq == 0 {
		return base{}, nil
	}
	msg, err := r.st.Get(ctx, seq)
	if err != nil {
		return base{}, ignoreNotFound(err)
	}
	return base{seq: seq, time: msg.Time}, nil
}

func ignoreNotFound(err error) error {
	if errors.Is(err, stream.ErrNotFound) {
		return nil
	}
	return err
}

// refreshBase asks for a full file whenever the newest one is half as old as the
// stream lets messages grow.
func (r *runner) refreshBase(ctx context.Context) (stop func()) {
	if r.cfg.Retain <= 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		t := time.NewTicker(max(r.cfg.Retain/20, time.Second))
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
				r.refresh()
			}
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}

func (r *runner) refresh() {
	r.mu.Lock()
	b := r.mu.base
	r.mu.Unlock()
	if b.seq != 0 && time.Since(b.time) > r.cfg.Retain/2 {
		r.c.Full()
	}
}
