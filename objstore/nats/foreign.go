package natsobj

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"
)

// foreign reads an object that something else put. Its chunks may be of any
// size up to the one in its meta, so what precedes a range must be read, once:
// the places passed are kept for later ranges of the same object.
type foreign struct {
	s       *Store
	subject string
	nuid    string
	offset  int64 // of the range
	end     int64 // behind it
	at      step  // the next message
	msgs    []message
}

// step is where one of the chunks of an object begins.
type step struct {
	offset int64
	seq    uint64
}

const (
	stepEvery   = 1 << 20 // bytes between two steps that are kept
	keptObjects = 64      // whose steps are kept
	batchBytes  = 4 << 20
)

func (s *Store) openForeign(o object, offset, left int64) source {
	if !identifier.MatchString(o.NUID) {
		return none{}
	}
	return &foreign{s: s, subject: s.chunkSubject(o.NUID), nuid: o.NUID, offset: offset, end: offset + left, at: s.offsets.before(o.NUID, offset)}
}

func (f *foreign) close() { f.msgs = nil }

func (f *foreign) next(ctx context.Context) ([]byte, error) {
	for {
		if len(f.msgs) == 0 {
			if err := f.fetch(ctx); err != nil {
				return nil, err
			}
		}
		m := f.msgs[0]
		f.msgs = f.msgs[1:]
		f.s.offsets.add(f.nuid, step{f.at.offset, m.Seq})
		skip := max(f.offset-f.at.offset, 0)
		f.at = step{f.at.offset + int64(len(m.Data)), m.Seq + 1}
		if skip < int64(len(m.Data)) {
			return m.Data[skip:], nil
		}
	}
}

// fetch gets the next messages from a replica or, where it has none, the next
// one from the leader.
func (f *foreign) fetch(ctx context.Context) error {
	bytes := min(f.end-f.at.offset, batchBytes) // how many messages that is nobody knows
	b, err := f.s.batch(ctx, getRequest{NextFor: f.subject, Seq: f.at.seq, Batch: 1000, MaxBytes: int(bytes)})
	if err == nil {
		f.msgs = b.msgs
		return nil
	}
	if !errors.Is(err, errNoMessage) && !errors.Is(err, nats.ErrNoResponders) {
		return err
	}
	m, err := f.s.leader(ctx, getRequest{NextFor: f.subject, Seq: f.at.seq})
	if errors.Is(err, errNoMessage) {
		return fmt.Errorf("chunks end at %d bytes: %w", f.at.offset, errGone)
	}
	f.msgs = []message{m}
	return err
}

// offsets keeps steps of objects, of the last ones that were opened. The zero
// value is ready.
type offsets struct {
	mu    sync.Mutex
	steps map[string][]step
	order []string // of the objects, oldest first
}

// before returns the last step known that is not behind offset.
func (o *offsets) before(nuid string, offset int64) step {
	o.mu.Lock()
	defer o.mu.Unlock()
	at := step{0, 1}
	for _, s := range o.steps[nuid] {
		if s.offset > offset {
			break
		}
		at = s
	}
	return at
}

// add keeps s unless it is near the last one.
func (o *offsets) add(nuid string, s step) {
	o.mu.Lock()
	defer o.mu.Unlock()
	have := o.steps[nuid]
	if len(have) > 0 && s.offset < have[len(have)-1].offset+stepEvery {
		return
	}
	if len(have) == 0 {
		if o.steps == nil {
			o.steps = map[string][]step{}
		}
		if o.order = append(o.order, nuid); len(o.order) > keptObjects {
			delete(o.steps, o.order[0])
			o.order = o.order[1:]
		}
	}
	o.steps[nuid] = append(have, s)
}
