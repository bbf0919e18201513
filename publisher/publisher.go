package publisher

import (
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

	mu struct {
		sync.Mutex
		capture *capture.Capture // nil unless Run runs
		acked   ltx.Pos          // newest acknowledged position
		changed chan struct{}    // closed and replaced when acked moves
		epoch   uint64           // of our claim; 0: none yet
		base    base
		status  counters
		err     string
		ended   error // Run has returned
	}
}

// base is the newest full file in the stream.
type base struct {
	seq  uint64 // of its first message
	time time.Time
}

// New checks cfg. Nothing is opened before Run.
func New(cfg Config) (*Publisher, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	p := &Publisher{cfg: cfg}
	p.mu.changed = make(chan struct{})
	if p.host, err = os.Hostname(); err != nil {
		p.host = "unknown"
	}
	return p, nil
}

// Run publishes until ctx ends, and then what was committed by then: nil says
// that all of it was acknowledged. It returns early with an error that does not
// pass: ErrLocked, ErrFenced, ErrDiverged, a database that cannot be opened, a
// stream that could lose data, a denied permission. While NATS is away it goes
// on capturing, and publishes in order on return.
func (p *Publisher) Run(ctx context.Context) (err error) {
	defer func() { p.end(err) }()
	defer p.cfg.Metrics.watch(p)()
	c, err := capture.Open(ctx, p.captureConfig())
	if err != nil {
		return fmt.Errorf("publish %s: %w", p.cfg.DB, err)
	}
	p.setCapture(c)
	defer func() {
		p.setCapture(nil)
		err = errors.Join(err, c.Close())
	}()
	r := &runner{Publisher: p, c: c}
	return r.run(ctx)
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
		err = errors.New("publisher has stopped")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.ended = err
	p.signal()
}

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

// Sync returns once everything that was committed before the call has been
// acknowledged by the stream, with the position that holds the last of it.
func (p *Publisher) Sync(ctx context.Context) (ltx.Pos, error) {
	c, err := p.running(ctx)
	if err != nil {
		return ltx.Pos{}, fmt.Errorf("sync %s: %w", p.cfg.DB, err)
	}
	pos, err := c.Sync(ctx)
	if err != nil {
		return ltx.Pos{}, fmt.Errorf("sync %s: %w", p.cfg.DB, err)
	}
	for {
		p.mu.Lock()
		acked, changed, ended := p.mu.acked, p.mu.changed, p.mu.ended
		p.mu.Unlock()
		switch {
		case acked.TXID >= pos.TXID:
			return pos, nil
		case ended != nil:
			return ltx.Pos{}, fmt.Errorf("sync %s: %w", p.cfg.DB, ended)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ltx.Pos{}, fmt.Errorf("sync %s: %s captured, %s acknowledged: %w", p.cfg.DB, pos.TXID, acked.TXID, context.Cause(ctx))
		}
	}
}

// running waits for Run to have opened the database.
func (p *Publisher) running(ctx context.Context) (*capture.Capture, error) {
	for {
		p.mu.Lock()
		c, changed, ended := p.mu.capture, p.mu.changed, p.mu.ended
		p.mu.Unlock()
		switch {
		case ended != nil:
			return nil, ended
		case c != nil:
			return c, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (p *Publisher) spoolDir() string {
	dir := p.cfg.StateDir
	if dir == "" {
		dir = StateDir(p.cfg.Path)
	}
	return filepath.Join(dir, "spool")
}

func (p *Publisher) streamConfig() stream.Config {
	return stream.Config{Name: p.cfg.Stream, Replicas: p.cfg.Replicas, Retain: p.cfg.Retain, AcceptLossy: p.cfg.AcceptLossy}
}
