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
	"github.com/ltxstream/ltxstream/subscriber"
	"github.com/ltxstream/ltxstream/wire"
)

// liveReplica is a subscriber as the daemon and the control service see it.
type liveReplica struct {
	db  wire.DB
	id  string
	sub *subscriber.Subscriber
}

// status is what a replica shows: the subscriber's, and its id.
type status struct {
	ID string `json:"id"`
	subscriber.Status
}

func (r *liveReplica) Name() string { return string(r.db) }
func (r *liveReplica) Status() any  { return status{ID: r.id, Status: r.sub.Status()} }

// Run gives errors their exit codes.
func (r *liveReplica) Run(ctx context.Context) error { return explain(r.sub.Run(ctx)) }

func (r *liveReplica) Wait(ctx context.Context, txid ltx.TXID) (ltx.Pos, error) {
	pos, err := r.sub.WaitFor(ctx, txid)
	return pos, explain(err)
}

func (r *liveReplica) Ready(maxLag time.Duration) error { return ready(r.sub.Status(), maxLag) }

func ready(s subscriber.Status, maxLag time.Duration) error {
	lag := time.Duration(s.Lag * float64(time.Second))
	switch {
	case s.Error != "":
		return fmt.Errorf("%s: %s", s.State, s.Error)
	case s.State != subscriber.StateLive:
		return errors.New(string(s.State))
	case !s.Connected:
		return errors.New("not connected to NATS")
	case maxLag > 0 && lag > maxLag:
		return fmt.Errorf("lag %v is over %v", lag.Round(time.Millisecond), maxLag)
	}
	return nil
}

func (c *runCmd) newReplicas(js jetstream.JetStream, reg prometheus.Registerer, logger *slog.Logger, targets []daemon.Target, from subscriber.Bootstrapper) ([]*liveReplica, error) {
	metrics := subscriber.NewMetrics(reg)
	var replicas []*liveReplica
	for _, t := range targets {
		sub, err := subscriber.New(subscriber.Config{
			JS: js, Stream: c.Stream, DB: t.DB, Path: t.Path, StateDir: t.StateDir(),
			Bootstrapper: from, SoftWALLimit: int64(c.SoftWALLimit), SoleOwner: true, Metrics: metrics, Logger: logger,
		})
		if err != nil {
			return nil, daemon.Exit(daemon.ExitUsage, err, "nothing was done")
		}
		replicas = append(replicas, &liveReplica{db: t.DB, id: replicaID(t.Path), sub: sub})
	}
	return replicas, nil
}
