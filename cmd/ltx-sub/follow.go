package main

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/ltxstream/ltxstream/internal/daemon"
	"github.com/ltxstream/ltxstream/internal/natsconn"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/subscriber"
	"github.com/ltxstream/ltxstream/subscriber/archive"
	"github.com/ltxstream/ltxstream/wire"
)

// name is the rule for names of databases: those of an archive alone may be
// Litestream's.
func (c *runCmd) name(s string) (wire.DB, error) {
	if c.NoStream {
		return wire.DB(s), levels.CheckDB(s)
	}
	return wire.ParseDB(s)
}

// follow keeps replicas of what an archive has.
func (c *runCmd) follow(ctx context.Context, e *env, targets []daemon.Target) error {
	if c.Archive == "" {
		return daemon.Exit(daemon.ExitUsage, errors.New("--no-stream, and no archive to follow"), "nothing was done; name one with --archive URL")
	}
	link := &natsconn.Lazy{Flags: e.nats, Name: command, Logger: e.logger} // for nats:// alone
	defer link.Close()
	a, closeArchive, err := c.archive(ctx, e, link.JetStream)
	if err != nil {
		return err
	}
	defer closeArchive()
	registry := daemon.NewRegistry()
	cfg := subscriber.Config{PollInterval: c.PollInterval, Metrics: subscriber.NewMetrics(registry), Logger: e.logger}
	replicas, err := c.newReplicas(cfg, targets, func(t daemon.Target) subscriber.Bootstrapper {
		return &archive.Follower{Archive: a, StateDir: t.StateDir(), Dir: filepath.Dir(t.Path), Logger: e.logger}
	})
	if err != nil {
		return err
	}
	return c.serve(ctx, e, registry, replicas)
}
