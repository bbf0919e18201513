package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/daemon"
	"github.com/ltxstream/ltxstream/wire"
)

type replica struct {
	db wire.DB
	id string
}

func (p *replica) Name() string                                    { return string(p.db) }
func (p *replica) Ready(time.Duration) error                       { return nil }
func (p *replica) Status() any                                     { return nil }
func (p *replica) Wait(context.Context, ltx.TXID) (ltx.Pos, error) { return ltx.Pos{}, nil }
func (p *replica) Run(ctx context.Context) error                   { <-ctx.Done(); return nil }

func (c *runCmd) newReplicas(js jetstream.JetStream, reg prometheus.Registerer, logger *slog.Logger, targets []daemon.Target) ([]*replica, error) {
	return nil, errors.New("subscriber is not wired")
}
