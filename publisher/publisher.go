package publisher

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/ltxstream/ltxstream/internal/capture"
	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/superfly/ltx"
)

// Publisher publishes one database. Run runs once; Sync and Status may be
// called at any time from any goroutine.
type Publisher struct {
	cfg  Config
	host string
	done chan struct{} // closed when Run has returned

	times struct { // tests shorten them
		ack  time.Duration // how long an acknowledgement is waited for
		look time.Duration // how often an idle publisher looks at the stream
		skew time.Duration // added to what the state directory says
	}

	mu struct {
		sync.Mutex
		began   bool             // Run was called
		capture *capture.Capture // nil unless Run runs
		acked   ltx.Pos          // newest acknowledged position; zero: none of this chain
		chain   int              // counts the times that captured positions lost their meaning
		changed chan struct{}    // closed and replaced when one of these moves
		epoch   uint64           // of our claim; 0: none yet
		base    base
		fulls   uint64 // full files published by this Run
		status  counters
		err     string
		ended   error // Run has returned
	}
}

// New checks cfg. Nothing is opened before Run.
func New(cfg Config) (*Publisher, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	p := &Publisher{cfg: cfg, done: make(chan struct{})}
	p.times.ack, p.times.look = ackWait, lookEvery
	p.mu.changed = make(chan struct{})
	if p.host, err = os.Hostname(); err != nil {
		p.host = "unknown"
	}
	return p, nil
}

// Run publishes until ctx ends, and then what was committed by then: nil says
// that all of it was acknowledged. It returns early with an error that does not
// pass: ErrLocked, ErrFenced, ErrDiverged, ErrAhead, ErrAfter, a database that cannot be opened, a
// stream that could lose data, a denied permission. While NATS is away it goes
// on capturing, and publishes in order on return.
func (p *Publisher) Run(ctx context.Context) (err error) {
	if !p.begin() {
		return fmt.Errorf("publish %s: Run runs once", p.cfg.DB)
	}
	defer func() { p.end(err) }()
	defer p.cfg.Metrics.watch(p)()
	c, err := p.open(ctx)
	if err != nil {
		return fmt.Errorf("publish %s: %w", p.cfg.DB, err)
	}
	p.setCapture(c)
	defer func() {
		p.setCapture(nil)
		err = errors.Join(err, c.Close())
	}()
	return newRunner(p, c).run(ctx)
}

func (p *Publisher) begin() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	first := !p.mu.began
	p.mu.began = true
	return first
}

func (p *Publisher) open(ctx context.Context) (*capture.Capture, error) {
	leave, err := p.cfg.Gate.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	return capture.Open(ctx, p.captureConfig())
}

func (p *Publisher) captureConfig() capture.Config {
	return capture.Config{
		Path:           p.cfg.Path,
		StateDir:       p.cfg.StateDir,
		PerTransaction: p.cfg.PerTransaction,
		SoftWALLimit:   p.cfg.SoftWALLimit,
		SpoolLimit:     p.cfg.SpoolLimit,
		SoleOwner:      p.cfg.SoleOwner,
		Notifier:       p.cfg.Notifier,
		Logger:         p.cfg.Logger,
		Observer:       p.cfg.Metrics.observer(p.cfg.DB),
		Crash:          p.cfg.crash,
	}
}

func (p *Publisher) setCapture(c *capture.Capture) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.capture = c
	p.signal()
}

func (p *Publisher) end(err error) {
	if err == nil {
		err = errStopped
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.ended = err
	p.signal()
	close(p.done)
}

var errStopped = errors.New("publisher has stopped")

// signal wakes whoever waits for a change. p.mu is held.
func (p *Publisher) signal() {
	close(p.mu.changed)
	p.mu.changed = make(chan struct{})
}

func (p *Publisher) setAcked(pos ltx.Pos) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.acked = pos
	p.signal()
}

// renumber says that captured positions were given up: the chain goes on from
// elsewhere, and what was captured will be part of a later file.
func (p *Publisher) renumber() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.chain++
	p.mu.acked = ltx.Pos{}
	p.signal()
}

func (p *Publisher) stateDir() string { return cmp.Or(p.cfg.StateDir, StateDir(p.cfg.Path)) }

func (p *Publisher) spoolDir() string { return filepath.Join(p.stateDir(), "spool") }

func (p *Publisher) streamConfig() stream.Config {
	return stream.Config{Name: p.cfg.Stream, Replicas: p.cfg.Replicas, Retain: p.cfg.Retain, AcceptLossy: p.cfg.AcceptLossy}
}
