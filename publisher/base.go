package publisher

import (
	"context"
	"errors"
	"time"

	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/wire"
)

// base is the newest full file in the stream: new readers begin there.
type base struct {
	seq   uint64 // of its first message; 0: there is none
	time  time.Time
	keep  time.Duration // age at which the stream drops it; 0: never
	asked bool          // a newer one is wanted, and not published yet
}

// findBase finds the newest full file of the stream. Where there is none that
// can be read, and messages are dropped by age, one is asked for. One that is newer
// than that of the session before is what was asked for: it was stored, and the
// session did not get to know it.
func (r *runner) findBase(ctx context.Context, head stream.Head) error {
	r.keepFor(r.cfg.Retain, r.st.Config().MaxAge)
	d := head.Data
	unfinished := d != nil && d.Meta.Full && d.Meta.Part < d.Meta.Parts // it goes on, or another follows
	if unfinished && r.based {
		return nil
	}
	b, err := r.baseOf(ctx, d)
	if err != nil {
		return err
	}
	r.mu.Lock()
	b.keep, b.asked = r.mu.base.keep, r.mu.base.asked
	if r.based && b.seq > r.mu.base.seq {
		b.asked = false
		r.mu.fulls++
		r.signal()
	}
	r.mu.base = b
	r.mu.Unlock()
	r.based = true
	if b.seq == 0 && d != nil && !unfinished && b.keep > 0 {
		r.ask()
	}
	return nil
}

// keepFor notes how old a full file becomes in the stream; 0: no limit.
func (r *runner) keepFor(retain, maxAge time.Duration) {
	if maxAge > 0 && (retain == 0 || maxAge < retain) {
		retain = maxAge
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.base.keep = retain
}

// baseOf returns the full file that d is, when it is whole, or is based on.
func (r *runner) baseOf(ctx context.Context, d *stream.Message) (base, error) {
	if d == nil {
		return base{}, nil
	}
	seq := d.Meta.Base
	if d.Meta.Full && d.Meta.Part == d.Meta.Parts {
		var err error
		if seq, err = r.st.SeqOf(ctx, r.cfg.DB, d.Meta.Max); err != nil {
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
	if msg.Meta.DB != r.cfg.DB || !msg.Meta.Full {
		return base{}, nil
	}
	return base{seq: seq, time: msg.Time}, nil
}

func ignoreNotFound(err error) error {
	if _, foreign := errors.AsType[*wire.HeaderError](err); foreign || errors.Is(err, stream.ErrNotFound) {
		return nil
	}
	return err
}

// newBase records the full file that was just stored.
func (p *Publisher) newBase(seq uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.base = base{seq: seq, time: time.Now(), keep: p.mu.base.keep}
	p.mu.fulls++
	p.signal()
}

// ask asks for a full file, once until one is published: while NATS is away
// the spool must not fill with them.
func (r *runner) ask() {
	r.mu.Lock()
	asked := r.mu.base.asked
	r.mu.base.asked = true
	r.mu.Unlock()
	if !asked {
		r.c.Full()
	}
}

// unask takes an ask back: what was captured of it was dropped.
func (r *runner) unask() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.base.asked = false
}

func (r *runner) keep() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.base.keep
}

// refresh asks for a full file when the newest one is half as old as the stream
// lets messages grow, and returns when to look again.
func (r *runner) refresh() time.Duration {
	r.mu.Lock()
	b := r.mu.base
	r.mu.Unlock()
	if b.seq != 0 && time.Since(b.time) > b.keep/2 {
		r.ask()
	}
	return min(max(b.keep/20, 50*time.Millisecond), time.Minute)
}
