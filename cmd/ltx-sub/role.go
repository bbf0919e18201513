package main

import (
	"context"
	"errors"
	"fmt"
	"time"

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
	case !s.Connected && s.Stream == "":
		return errors.New("the archive does not answer")
	case !s.Connected:
		return errors.New("not connected to NATS")
	case maxLag > 0 && lag > maxLag:
		return fmt.Errorf("lag %v is over %v", lag.Round(time.Millisecond), maxLag)
	}
	return nil
}

// newReplicas makes a replica of each target: cfg says what they have in common,
// from where each gets what no stream has.
func (c *runCmd) newReplicas(cfg subscriber.Config, targets []daemon.Target, from func(daemon.Target) subscriber.Bootstrapper) ([]*liveReplica, error) {
	cfg.SoftWALLimit, cfg.SoleOwner = int64(c.SoftWALLimit), true
	var replicas []*liveReplica
	for _, t := range targets {
		cfg.DB, cfg.Path, cfg.StateDir, cfg.Bootstrapper = t.DB, t.Path, t.StateDir(), from(t)
		sub, err := subscriber.New(cfg)
		if err != nil {
			return nil, daemon.Exit(daemon.ExitUsage, err, "nothing was done")
		}
		replicas = append(replicas, &liveReplica{db: t.DB, id: replicaID(t.Path), sub: sub})
	}
	return replicas, nil
}
