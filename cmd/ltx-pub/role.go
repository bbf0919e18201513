package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/daemon"
	"github.com/ltxstream/ltxstream/publisher"
	"github.com/ltxstream/ltxstream/wire"
)

// publication is a publisher as the daemon and the control service see it.
type publication struct {
	db  wire.DB
	pub *publisher.Publisher
}

func (p *publication) Name() string { return string(p.db) }
func (p *publication) Status() any  { return p.pub.Status() }

// Run gives errors their exit codes.
func (p *publication) Run(ctx context.Context) error { return explain(p.pub.Run(ctx)) }

func (p *publication) Sync(ctx context.Context) (ltx.Pos, error) {
	pos, err := p.pub.Sync(ctx)
	return pos, explain(err)
}

func (p *publication) Full(ctx context.Context) (ltx.Pos, error) {
	pos, err := p.pub.Full(ctx)
	return pos, explain(err)
}

func (p *publication) Ready(maxLag time.Duration) error { return ready(p.pub.Status(), maxLag) }

func ready(s publisher.Status, maxLag time.Duration) error {
	lag := time.Duration(s.Lag * float64(time.Second))
	switch {
	case !s.Running:
		return errors.New("not running")
	case s.Error != "":
		return errors.New(s.Error)
	case s.Epoch == 0:
		return errors.New("has not claimed the database yet")
	case s.Capture.SpoolFull:
		return fmt.Errorf("the spool is full: %d bytes wait", s.Capture.SpoolBytes)
	case maxLag > 0 && lag > maxLag:
		return fmt.Errorf("lag %v is over %v", lag.Round(time.Millisecond), maxLag)
	}
	return nil
}

// openAtOnce is how many databases are opened at one time: enough that one which
// waits for a lock does not hold up the others, few enough that threads stay few.
const openAtOnce = 32

// newPublications makes the publishers; close ends what they share.
func (c *runCmd) newPublications(js jetstream.JetStream, reg prometheus.Registerer, logger *slog.Logger, targets []daemon.Target, from origins) (pubs []*publication, closeAll func() error, err error) {
	notifier, err := publisher.NewNotifier()
	if err != nil {
		return nil, nil, fmt.Errorf("watch files: %w", err)
	}
	metrics, gate := publisher.NewMetrics(reg), publisher.NewGate(openAtOnce)
	for _, t := range targets {
		pub, err := publisher.New(publisher.Config{
			JS: js, Stream: c.Stream, Replicas: c.Replicas, Retain: c.Retain, AcceptLossy: c.AcceptLossyStream,
			DB: t.DB, Path: t.Path, StateDir: t.StateDir(),
			PerTransaction: c.PerTransaction, ForceReseed: c.ForceReseed, After: from.after(t, js, logger),
			SoftWALLimit: int64(c.SoftWALLimit), SpoolLimit: int64(c.SpoolLimit),
			SoleOwner: true, Notifier: notifier, Gate: gate, Metrics: metrics, Logger: logger,
		})
		if err != nil {
			return nil, nil, errors.Join(daemon.Exit(daemon.ExitUsage, err, "nothing was done"), notifier.Close())
		}
		pubs = append(pubs, &publication{db: t.DB, pub: pub})
	}
	return pubs, notifier.Close, nil
}
