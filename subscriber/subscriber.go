package subscriber

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ltxstream/ltxstream/replica"
	"github.com/superfly/ltx"
)

// Subscriber feeds one replica. Run runs once; WaitFor, Status and ID may be
// called at any time from any goroutine.
type Subscriber struct {
	cfg Config

	mu struct {
		sync.Mutex
		replica *replica.Replica // nil unless Run runs
		id      string
		changed chan struct{} // closed and replaced when replica or ended change
		ended   error         // Run has returned
		err     string
		counters
		head    ltx.Pos   // end of the stream when it was last read
		headAt  time.Time // when that was
		applied time.Time // timestamp of the newest applied file
	}
}

// New checks cfg. Nothing is opened before Run.
func New(cfg Config) (*Subscriber, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Subscriber{cfg: cfg}
	s.mu.changed = make(chan struct{})
	return s, nil
}

// Run replicates until ctx ends, and returns nil then. It returns early with
// an error that does not pass: ErrLocked, replica.ErrLocked, a file that is no
// database, a denied permission. Whatever can pass (NATS away, no stream yet,
// a gap) is tried again and shows in Status.
func (s *Subscriber) Run(ctx context.Context) (err error) {
	defer func() { s.end(err) }()
	defer s.cfg.Metrics.watch(s)()
	st, err := openState(s.cfg.StateDir)
	if err != nil {
		return fmt.Errorf("replicate %s: %w", s.cfg.DB, err)
	}
	defer func() { err = errors.Join(err, st.close()) }()
	s.mu.Lock()
	s.mu.id = st.id
	s.mu.Unlock()
	r := &runner{Subscriber: s, st: st}
	defer func() { err = errors.Join(err, r.close()) }()
	return r.run(ctx)
}

// ID returns the random id of the state directory, "" before Run has read it.
func (s *Subscriber) ID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.id
}

func (s *Subscriber) end(err error) {
	if err == nil {
		err = errors.New("subscriber has stopped")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.ended = err
	s.signal()
}

// signal wakes whoever waits for a change. s.mu is held.
func (s *Subscriber) signal() {
	close(s.mu.changed)
	s.mu.changed = make(chan struct{})
}

func (s *Subscriber) setReplica(r *replica.Replica) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.replica = r
	s.signal()
}

// WaitFor returns as soon as the replica is at txid or past it: a reader that
// begins after it returned sees that transaction. It returns the position then
// reached, and otherwise the cause of ctx, or why Run has returned.
func (s *Subscriber) WaitFor(ctx context.Context, txid ltx.TXID) (ltx.Pos, error) {
	for {
		s.mu.Lock()
		r, changed, ended := s.mu.replica, s.mu.changed, s.mu.ended
		s.mu.Unlock()
		if ended != nil {
			return ltx.Pos{}, fmt.Errorf("wait for %s of %s: %w", txid, s.cfg.DB, ended)
		}
		if r != nil {
			pos, err := r.WaitFor(ctx, txid)
			if !errors.Is(err, replica.ErrClosed) {
				return pos.Pos, s.waited(txid, pos.Pos, err)
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ltx.Pos{}, s.waited(txid, ltx.Pos{}, context.Cause(ctx))
		}
	}
}

func (s *Subscriber) waited(txid ltx.TXID, at ltx.Pos, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("wait for %s of %s, it is at %s: %w", txid, s.cfg.DB, at.TXID, err)
}
