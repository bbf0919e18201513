package natsobj

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The index: a name message for each object, so that the names under a prefix
// can be had by subject. It lags behind the metas: those up to the mark have
// their names in it, the tail is what came later. See DESIGN.md.

const (
	nameEvery = 128  // Puts of one store between two looks at the tail
	nameLeast = 64   // a shorter tail is left as it is
	nameMost  = 1024 // names published in one go
	tailMost  = 4096 // names remembered until the mark is read again
)

// scan calls each for the metas behind the sequence after, in their order, as
// the leader knows them when it ends, until each returns false. It returns the
// sequence of the last one.
func (s *Store) scan(ctx context.Context, after uint64, each func(object) bool) (uint64, error) {
	for hits := 0; ; hits++ {
		m, err := s.leader(ctx, getRequest{Seq: after + 1, NextFor: s.allMetas()})
		if errors.Is(err, errNoMessage) {
			return after, nil
		}
		msgs := []message{m}
		if err == nil && hits > 0 { // more than one: many at once
			var b batch
			if b, err = s.batch(ctx, getRequest{Seq: m.Seq + 1, NextFor: s.allMetas(), Batch: 1000, MaxBytes: batchBytes}); err == nil {
				msgs = append(msgs, b.msgs...)
			} else if errors.Is(err, errNoMessage) || errors.Is(err, nats.ErrNoResponders) {
				err = nil
			}
		}
		if err != nil {
			return after, err
		}
		for _, m := range msgs {
			after = m.Seq
			if o, err := parseObject(m); err == nil && !each(o) {
				return after, nil
			}
		}
	}
}

// mark reads up to where the metas have their names in the index.
func (s *Store) mark(ctx context.Context) (uint64, error) {
	m, err := s.leader(ctx, getRequest{LastFor: s.markSubject()})
	if errors.Is(err, errNoMessage) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	mark, err := strconv.ParseUint(string(m.Data), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("mark of the index, message %d: %w", m.Seq, err)
	}
	return mark, nil
}

// tail remembers the names behind the mark, so that each meta is looked at
// once. Readers have one too: they never write.
type tail struct {
	turn    chan struct{} // one at a time
	created time.Time     // the stream that all of this is about
	known   bool          // the mark was read
	cursor  uint64        // metas up to here were looked at
	names   map[string]uint64
}

func (t *tail) init() { t.turn, t.names = make(chan struct{}, 1), map[string]uint64{} }

func (t *tail) lock(ctx context.Context) error {
	select {
	case t.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (t *tail) unlock() { <-t.turn }

// skip leaves out the metas up to mark: their names are in the index.
func (t *tail) skip(mark uint64) {
	t.known, t.cursor = true, max(t.cursor, mark)
	for name, at := range t.names {
		if at <= mark {
			delete(t.names, name)
		}
	}
}

// tailNames returns the names behind the mark that begin with prefix.
func (s *Store) tailNames(ctx context.Context, prefix string) (names []string, err error) {
	t := &s.tail
	if err := t.lock(ctx); err != nil {
		return nil, err
	}
	defer t.unlock()
	if !t.known || len(t.names) > tailMost {
		mark, err := s.mark(ctx)
		if err != nil {
			return nil, err
		}
		t.skip(mark)
	}
	seen := s.seen.get() // and so the leader has it too
	t.cursor, err = s.scan(ctx, t.cursor, func(o object) bool {
		if o.live() && validName(o.Name) {
			t.names[o.Name] = o.seq
		} else {
			delete(t.names, o.Name)
		}
		return true
	})
	if err == nil { // from the end of the stream the next scan costs the server least
		t.cursor = max(t.cursor, seen)
	}
	for name := range t.names {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	return names, err
}

// isOf forgets everything, and returns false, when it is about another stream
// than the one created at that time: the bucket was made anew.
func (t *tail) isOf(ctx context.Context, created time.Time) (bool, error) {
	if err := t.lock(ctx); err != nil {
		return false, err
	}
	defer t.unlock()
	same := t.created.IsZero() || t.created.Equal(created)
	if t.created = created; !same {
		t.known, t.cursor = false, 0
		clear(t.names)
	}
	return same, nil
}

// naming paces the work on the index.
type naming struct {
	left atomic.Int64 // Puts until the next look
	busy sync.Mutex
}

// nameObjects gives the objects of the tail their names in the index, when that
// is due: an own or foreign object gets there by the Puts that follow it.
func (s *Store) nameObjects(ctx context.Context) error {
	if s.naming.left.Add(-1) >= 0 || !s.naming.busy.TryLock() {
		return nil
	}
	defer s.naming.busy.Unlock()
	s.naming.left.Store(nameEvery)
	names, mark, err := s.unnamed(ctx)
	if err != nil || len(names) < nameLeast {
		return err
	}
	if len(names) == nameMost {
		s.naming.left.Store(0) // there are more
	}
	if err := s.publishNames(ctx, names, mark); err != nil {
		return err
	}
	if err := s.tail.lock(ctx); err != nil {
		return err
	}
	defer s.tail.unlock()
	s.tail.skip(mark)
	return nil
}

// unnamed returns the names of the oldest metas behind the mark, and the mark
// to set when these have them. It reads them anew: what was deleted meanwhile
// shall not get a name.
func (s *Store) unnamed(ctx context.Context) (names []string, mark uint64, err error) {
	if mark, err = s.mark(ctx); err != nil {
		return nil, 0, err
	}
	mark, err = s.scan(ctx, mark, func(o object) bool {
		if o.live() && validName(o.Name) {
			names = append(names, o.Name)
		}
		return len(names) < nameMost
	})
	return names, mark, err
}

// publishNames publishes names, and then the mark. A name that is there already
// is replaced, so it is newer than the meta it is for: Delete relies on it.
func (s *Store) publishNames(ctx context.Context, names []string, mark uint64) error {
	w := &window{s: s}
	defer w.close()
	for _, name := range names {
		if err := w.publish(ctx, onlyOne(s.nameSubject(name), nil)); err != nil {
			return err
		}
	}
	if err := w.drain(ctx); err != nil {
		return err
	}
	m := onlyOne(s.markSubject(), strconv.AppendUint(nil, mark, 10))
	_, err := s.publish(ctx, m.Subject, m.Header, m.Data)
	return err
}

// onlyOne returns a message that replaces all others on its subject.
func onlyOne(subject string, data []byte) *nats.Msg {
	return &nats.Msg{Subject: subject, Header: nats.Header{jetstream.MsgRollup: {jetstream.MsgRollupSubject}}, Data: data}
}
