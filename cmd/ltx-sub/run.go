package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/ltxstream/ltxstream/internal/control"
	"github.com/ltxstream/ltxstream/internal/daemon"
	"github.com/ltxstream/ltxstream/internal/natsconn"
)

const replicasKey = "replicas"

type runCmd struct {
	Replicas []string `arg:"" optional:"" name:"[NAME=]REPLICA" help:"Replica files, made when absent. The name of the database is the file's base name without extension, unless given."`

	Stream       string      `name:"stream" default:"LTX" help:"JetStream stream."`
	SoftWALLimit daemon.Size `name:"soft-wal-limit" placeholder:"SIZE" help:"WAL size from which on it is checkpointed and restarted."`
	HTTP         string      `name:"http" placeholder:"ADDR" help:"Serve /healthz, /readyz?max_lag=2s, /metrics and /status."`
}

// Run replicates until ctx ends.
func (c *runCmd) Run(ctx context.Context, e *env) error {
	targets, err := c.targets(e.config)
	if err != nil {
		return err
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
	targets, err := daemon.ParseTargets(args)
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
	replicas, err := c.newReplicas(js, registry, e.logger, targets)
	if err != nil {
		return err
	}
	var runners []daemon.Runner
	var served []control.Replica
	for _, r := range replicas {
		runners = append(runners, r)
		served = append(served, control.Replica{DB: r.db, ID: r.id, Status: r.Status, Wait: r.Wait})
	}
	svc, err := control.ServeReplicas(ctx, nc, control.Config{Version: daemon.Version, Logger: e.logger}, served)
	if err != nil {
		return err
	}
	err = daemon.Serve(ctx, daemon.ServeConfig{Runners: runners, HTTPAddr: c.HTTP, Registry: registry, Logger: e.logger})
	return errors.Join(err, svc.Close())
}
