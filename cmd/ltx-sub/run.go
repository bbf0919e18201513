package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ltxstream/ltxstream/internal/control"
	"github.com/ltxstream/ltxstream/internal/daemon"
	"github.com/ltxstream/ltxstream/internal/natsconn"
	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/objstore/open"
	"github.com/ltxstream/ltxstream/subscriber"
	"github.com/ltxstream/ltxstream/subscriber/archive"
)

const replicasKey = "replicas"

type runCmd struct {
	Replicas []string `arg:"" optional:"" name:"[NAME=]REPLICA" help:"Replica files, made when absent. The name of the database is the file's base name without extension, unless given."`

	Stream       string        `name:"stream" default:"LTX" help:"JetStream stream."`
	Archive      string        `name:"archive" placeholder:"URL" help:"Archive from which replicas begin, or go on, where the stream does not reach back far enough: as ltx-archive --to."`
	NoStream     bool          `name:"no-stream" help:"Follow the archive alone, without NATS: one that ltx-archive or Litestream writes."`
	PollInterval time.Duration `name:"poll-interval" default:"1s" help:"With --no-stream: how often the archive is asked for something new."`
	Exec         string        `name:"exec" placeholder:"CMD" help:"Command that is run once all replicas are live. It gets every signal; ltx-sub ends with it, and with its exit code."`
	SoftWALLimit daemon.Size   `name:"soft-wal-limit" placeholder:"SIZE" help:"WAL size from which on it is checkpointed and restarted."`
	HTTP         string        `name:"http" placeholder:"ADDR" help:"Serve /healthz, /readyz?max_lag=2s, /metrics and /status."`
}

// Run replicates until ctx ends.
func (c *runCmd) Run(ctx context.Context, e *env) error {
	targets, err := c.targets(e.config)
	if err != nil {
		return err
	}
	if c.NoStream {
		return c.follow(ctx, e, targets)
	}
	nc, js, err := e.nats.Connect(ctx, command, e.logger)
	if err != nil {
		return err
	}
	defer nc.Close()
	return natsconn.Diagnose(nc, c.replicate(ctx, e, nc, js, targets))
}

// targets are the replicas of the command line, or else of the file.
func (c *runCmd) targets(config *daemon.ConfigFile) ([]daemon.Target, error) {
	args := c.Replicas
	if len(args) == 0 && config != nil {
		var err error
		if args, err = config.Strings(replicasKey); err != nil {
			return nil, err
		}
	}
	targets, err := daemon.ParseTargetsNamed(args, c.name)
	if err != nil {
		return nil, err
	}
	return targets, checkDirs(targets)
}

// checkDirs reports every replica whose directory is not there.
func checkDirs(targets []daemon.Target) error {
	var errs []error
	for _, t := range targets {
		dir := filepath.Dir(t.Path)
		info, err := os.Stat(dir)
		if err == nil && !info.IsDir() {
			err = fmt.Errorf("%s is not a directory", dir)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("open replica of %s: %w", t.DB, err))
		}
	}
	return daemon.Exit(daemon.ExitNotFound, errors.Join(errs...), "nothing was done; make the directory, or correct the path")
}

func (c *runCmd) replicate(ctx context.Context, e *env, nc *nats.Conn, js jetstream.JetStream, targets []daemon.Target) error {
	registry := daemon.NewRegistry()
	from, closeArchive, err := c.bootstrapper(ctx, e, js)
	if err != nil {
		return err
	}
	defer closeArchive()
	replicas, err := c.newReplicas(subscriber.Config{JS: js, Stream: c.Stream, Metrics: subscriber.NewMetrics(registry), Logger: e.logger},
		targets, func(daemon.Target) subscriber.Bootstrapper { return from })
	if err != nil {
		return err
	}
	var served []control.Replica
	for _, r := range replicas {
		served = append(served, control.Replica{DB: r.db, ID: r.id, Status: r.Status, Wait: r.Wait})
	}
	svc, err := control.ServeReplicas(ctx, nc, control.Config{Version: daemon.Version, Logger: e.logger}, served)
	if err != nil {
		return err
	}
	return errors.Join(c.serve(ctx, e, registry, replicas), svc.Close())
}

// serve runs the replicas, and the command beside them.
func (c *runCmd) serve(ctx context.Context, e *env, registry *prometheus.Registry, replicas []*liveReplica) error {
	cfg := daemon.ServeConfig{HTTPAddr: c.HTTP, Registry: registry, Logger: e.logger}
	for _, r := range replicas {
		cfg.Runners = append(cfg.Runners, r)
	}
	if c.Exec == "" {
		return daemon.Serve(ctx, cfg)
	}
	return daemon.Exec(ctx, daemon.ExecConfig{
		Command: c.Exec, Logger: e.logger,
		Serve: func(ctx context.Context) error { return daemon.Serve(ctx, cfg) },
		Ready: func() error {
			for _, r := range replicas {
				if err := r.Ready(0); err != nil {
					return err
				}
			}
			return nil
		},
	})
}

// bootstrapper opens the archive, nil when there is none.
func (c *runCmd) bootstrapper(ctx context.Context, e *env, js jetstream.JetStream) (from subscriber.Bootstrapper, closeArchive func(), err error) {
	if c.Archive == "" {
		return nil, func() {}, nil
	}
	a, closeArchive, err := c.archive(ctx, e, func(context.Context) (jetstream.JetStream, error) { return js, nil })
	if err != nil {
		return nil, nil, err
	}
	return &archive.Bootstrapper{Archive: a, Logger: e.logger}, closeArchive, nil
}

func (c *runCmd) archive(ctx context.Context, e *env, connect func(context.Context) (jetstream.JetStream, error)) (*levels.Archive, func(), error) {
	a, err := open.Archive(ctx, c.Archive, open.Options{NATS: connect, Retry: objstore.RetryConfig{Logger: e.logger}})
	if errors.Is(err, open.ErrURL) {
		err = daemon.Exit(daemon.ExitUsage, err, "nothing was done")
	}
	if err != nil {
		return nil, nil, err
	}
	return a, func() {
		if err := a.Store().Close(); err != nil {
			e.logger.Warn("archive not closed cleanly", "err", err)
		}
	}, nil
}
