package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/wire"
)

// Defaults of [Config], and the longest a request may take.
const (
	DefaultMaxRunning = 64
	defaultTimeout    = 5 * time.Second
	maxTimeout        = 10 * time.Minute
	flushTimeout      = 2 * time.Second
)

// Config is what both sides' services share.
type Config struct {
	// Version is the program's, as semantic versioning has it.
	Version string
	// MaxRunning bounds the requests that wait at one time; 0 means
	// DefaultMaxRunning. One more is answered with KindBusy.
	MaxRunning int
	// Logger; nil means slog.Default().
	Logger *slog.Logger
}

// Publication is one published database. The functions are called
// concurrently.
type Publication struct {
	DB     wire.DB
	Status func() any // returns at once; encoded as JSON
	Sync   func(context.Context) (ltx.Pos, error)
	Full   func(context.Context) (ltx.Pos, error) // publishes a file of all pages
}

// Replica is one live replica. The functions are called concurrently.
type Replica struct {
	DB     wire.DB
	ID     string     // one NATS token, unique among the replicas of DB
	Status func() any // returns at once; encoded as JSON
	Wait   func(context.Context, ltx.TXID) (ltx.Pos, error)
}

// Service answers until Close.
type Service struct {
	micro  micro.Service
	cfg    Config
	cancel context.CancelFunc
	slots  chan struct{} // one token per running request

	mu struct {
		sync.Mutex
		closed bool
	}
	running sync.WaitGroup
}

// ServePublications answers for these databases on nc. Requests end when ctx
// does; Close must follow.
func ServePublications(ctx context.Context, nc *nats.Conn, cfg Config, pubs []Publication) (*Service, error) {
	return serve(ctx, nc, cfg, Publishers, func(ctx context.Context, s *Service) error {
		id := s.micro.Info().ID
		all := make([]func() any, 0, len(pubs))
		for _, p := range pubs {
			all = append(all, p.Status)
			work := func(do func(context.Context) (ltx.Pos, error)) []worker {
				return []worker{{p.DB, id, func(ctx context.Context, _ ltx.TXID) (ltx.Pos, error) { return do(ctx) }}}
			}
			err := errors.Join(
				s.addStatus("status-"+string(p.DB), subject(Publishers, p.DB, "", "status"), id, []func() any{p.Status}),
				s.addWork(ctx, "sync-"+string(p.DB), subject(Publishers, p.DB, "", "sync"), noTXID, work(p.Sync)),
				s.addWork(ctx, "full-"+string(p.DB), subject(Publishers, p.DB, "", "full"), noTXID, work(p.Full)))
			if err != nil {
				return err
			}
		}
		return s.addStatus("status", subject(Publishers, "", "", "status"), id, all)
	})
}

// ServeReplicas answers for these replicas on nc. Requests end when ctx does;
// Close must follow.
func ServeReplicas(ctx context.Context, nc *nats.Conn, cfg Config, replicas []Replica) (*Service, error) {
	return serve(ctx, nc, cfg, Subscribers, func(ctx context.Context, s *Service) error {
		var all []func() any
		for _, r := range replicas {
			all = append(all, r.Status)
			if err := s.addReplicas(ctx, r.DB, r.ID, []Replica{r}); err != nil {
				return err
			}
		}
		for db, group := range byDB(replicas) {
			if err := s.addReplicas(ctx, db, "", group); err != nil {
				return err
			}
		}
		return s.addStatus("status", subject(Subscribers, "", "", "status"), s.micro.Info().ID, all)
	})
}

func byDB(replicas []Replica) map[wire.DB][]Replica {
	groups := map[wire.DB][]Replica{}
	for _, r := range replicas {
		groups[r.DB] = append(groups[r.DB], r)
	}
	return groups
}

// addReplicas adds status and wait for one replica (id) or for all of a
// database in this process (no id).
func (s *Service) addReplicas(ctx context.Context, db wire.DB, id string, group []Replica) error {
	var statuses []func() any
	var work []worker
	for _, r := range group {
		statuses = append(statuses, r.Status)
		work = append(work, worker{r.DB, r.ID, r.Wait})
	}
	name, answerer := string(db), s.micro.Info().ID
	if id != "" {
		name, answerer = name+"-"+id, id
	}
	return errors.Join(
		s.addStatus("status-"+name, subject(Subscribers, db, id, "status"), answerer, statuses),
		s.addWork(ctx, "wait-"+name, subject(Subscribers, db, id, "wait"), needTXID, work))
}

func serve(ctx context.Context, nc *nats.Conn, cfg Config, side Side, add func(context.Context, *Service) error) (*Service, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.MaxRunning == 0 {
		cfg.MaxRunning = DefaultMaxRunning
	}
	ms, err := micro.AddService(nc, micro.Config{
		Name:               side.Command(),
		Version:            cfg.Version,
		Description:        "ltxstream " + string(side) + ": replicates SQLite over JetStream",
		QueueGroupDisabled: true,
		ErrorHandler: func(_ micro.Service, err *micro.NATSError) {
			cfg.Logger.Warn("control service reports an error", "subject", err.Subject, "err", err)
		},
	})
	if err != nil {
		return nil, fmt.Errorf("add micro service: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &Service{micro: ms, cfg: cfg, cancel: cancel, slots: make(chan struct{}, cfg.MaxRunning)}
	if err := add(ctx, s); err != nil {
		return nil, errors.Join(fmt.Errorf("add micro endpoint: %w", err), s.Close())
	}
	if nc.IsConnected() { // else the subscriptions go out with the reconnect
		flush, cancel := context.WithTimeout(ctx, flushTimeout)
		defer cancel()
		if err := nc.FlushWithContext(flush); err != nil {
			cfg.Logger.Warn("control service is not confirmed", "err", err)
		}
	}
	return s, nil
}

// Close takes the service down, ends what runs (answered with KindStopped) and
// waits for it.
func (s *Service) Close() error {
	s.mu.Lock()
	s.mu.closed = true
	s.mu.Unlock()
	s.cancel()
	s.running.Wait()
	if err := s.micro.Stop(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		return fmt.Errorf("stop micro service: %w", err)
	}
	return nil
}

// spawn runs f in a goroutine that Close waits for; the answer is what stands
// in the way, empty when it runs.
func (s *Service) spawn(f func()) Kind {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return KindStopped
	}
	select {
	case s.slots <- struct{}{}:
	default:
		return KindBusy
	}
	s.running.Go(func() {
		defer func() { <-s.slots }()
		f()
	})
	return ""
}
