package subscriber

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/feed"
	"github.com/ltxstream/ltxstream/replica"
)

// ErrStopped says that Run has ended.
var ErrStopped = errors.New("subscriber has stopped")

// Subscriber keeps one replica. Run runs once; Status and WaitFor may be
// called at any time from any goroutine.
type Subscriber struct {
	cfg Config

	mu struct {
		sync.Mutex
		replica  *replica.Replica // nil: not open
		feed     *feed.Feed       // nil: not open
		incoming bool             // a file is applied while it is received
		answered bool             // the last poll was
		// interrupt ends the wait for a file that is under way.
		interrupt context.CancelCauseFunc
		changed   chan struct{} // closed and replaced when replica or ended changes
		state     State
		err       string    // what it is waiting out now
		applied   time.Time // timestamp of the newest applied transaction
		head      ltx.TXID  // newest known in the stream
		counters
		started, ended bool
	}
}

// New checks cfg. Nothing is opened before Run.
func New(cfg Config) (*Subscriber, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("new subscriber: %w", err)
	}
	s := &Subscriber{cfg: cfg}
	s.mu.changed, s.mu.state = make(chan struct{}), StateStarting
	return s, nil
}

// Run keeps the replica up to date until ctx ends: then it returns nil, and
// every file that was handed to the replica is applied. It waits out whatever
// passes: a NATS that is away, a stream that does not exist yet or has no base
// yet, a full disk. Errors that do not pass: ErrLocked, a replica that cannot
// be opened, a denied permission, a closed connection.
func (s *Subscriber) Run(ctx context.Context) (err error) {
	if err := s.begin(); err != nil {
		return err
	}
	defer s.end()
	defer s.cfg.Metrics.watch(s)()
	st, err := openState(s.cfg.StateDir)
	if err != nil {
		return fmt.Errorf("subscribe %s: %w", s.cfg.DB, err)
	}
	r := &runner{Subscriber: s, st: st}
	err = r.run(ctx)
	if ctx.Err() != nil {
		err = nil
	}
	if err = errors.Join(err, r.close(), st.close()); err != nil {
		return fmt.Errorf("subscribe %s: %w", s.cfg.DB, err)
	}
	return nil
}

func (s *Subscriber) begin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.started {
		return errors.New("subscriber runs only once")
	}
	s.mu.started = true
	return nil
}

func (s *Subscriber) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.ended, s.mu.state = true, StateStopped
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

func (s *Subscriber) setFeed(f *feed.Feed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.feed = f
}

func (s *Subscriber) setState(state State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.state = state
}

// WaitFor returns as soon as the replica is at txid or past it, with the
// position then reached: a reader that begins afterwards sees that
// transaction. Else it returns the cause of ctx, or ErrStopped after Run.
func (s *Subscriber) WaitFor(ctx context.Context, txid ltx.TXID) (ltx.Pos, error) {
	for {
		s.mu.Lock()
		r, changed, ended := s.mu.replica, s.mu.changed, s.mu.ended
		s.mu.Unlock()
		if r != nil {
			pos, err := r.WaitFor(ctx, txid)
			if err == nil || ctx.Err() != nil {
				return pos.Pos, err
			}
		}
		if ended {
			return ltx.Pos{}, ErrStopped
		}
		select {
		case <-changed: // closed, or opened again
		case <-ctx.Done():
			return ltx.Pos{}, context.Cause(ctx)
		}
	}
}
