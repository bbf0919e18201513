package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/ltxstream/ltxstream/embedded"
	"github.com/ltxstream/ltxstream/internal/control"
	"github.com/ltxstream/ltxstream/internal/daemon"
	"github.com/ltxstream/ltxstream/internal/natsconn"
)

const databasesKey = "databases"

type runCmd struct {
	Databases []string `arg:"" optional:"" name:"[NAME=]DB" help:"Database files. The name is the file's base name without extension, unless given: one NATS token of A-Z a-z 0-9 _ -."`

	Embedded             string        `name:"embedded" placeholder:"DIR" help:"Run NATS in this process, its store in this directory. Without --server, --context and --embedded it is beside the first database."`
	EmbeddedListen       string        `name:"embedded-listen" default:"127.0.0.1:4222" placeholder:"ADDR" help:"Address of the embedded NATS for other processes; \"none\" for none. No authentication."`
	EmbeddedSyncInterval time.Duration `name:"embedded-sync-interval" default:"0s" help:"How long the embedded NATS may leave an acknowledged message unsynced; 0 syncs before each acknowledgement."`

	Stream            string        `name:"stream" default:"LTX" help:"JetStream stream, created when absent."`
	Replicas          int           `name:"replicas" default:"1" enum:"1,3" help:"Replicas of a stream that is created: 1 or 3."`
	Retain            time.Duration `name:"retain" default:"24h" help:"Age limit of a stream that is created; 0 keeps everything until an archiver trims it."`
	PerTransaction    bool          `name:"per-transaction" help:"One LTX file per SQLite transaction instead of one per group of them."`
	ForceReseed       bool          `name:"force-reseed" env:"-" noconfig:"" help:"Make this database the truth although the stream's is not its past. One database, command line only."`
	FromLitestream    []string      `name:"from-litestream" placeholder:"[NAME=]URL" sep:"none" help:"Continue the TXIDs of the archive that a Litestream, which is stopped, wrote of the database NAME to its folder URL; without NAME, of all databases, in folders of their names below URL, and a single one also at URL itself. Changes nothing once anything was published. May be given several times."`
	AcceptLossyStream bool          `name:"accept-lossy-stream" help:"Use an existing stream whose limits may lose data."`
	SoftWALLimit      daemon.Size   `name:"soft-wal-limit" placeholder:"SIZE" help:"A WAL that nobody checkpoints is restarted at eight times this size (default 4 MiB)."`
	SpoolLimit        daemon.Size   `name:"spool-limit" placeholder:"SIZE" help:"Bytes of LTX files that wait on disk while NATS is away."`
	HTTP              string        `name:"http" placeholder:"ADDR" help:"Serve /healthz, /readyz?max_lag=2s, /metrics and /status."`
}

// Run publishes until ctx ends.
func (c *runCmd) Run(ctx context.Context, e *env) error {
	targets, err := c.targets(e.config)
	if err != nil {
		return err
	}
	from, err := parseOrigins(c.FromLitestream, targets)
	if err != nil {
		return err
	}
	conn, err := c.connect(ctx, e, targets[0])
	if err != nil {
		return err
	}
	err = c.publish(ctx, e, conn, targets, from)
	return errors.Join(natsconn.Diagnose(conn.nc, err), conn.close())
}

// targets are the databases of the command line, or else of the file.
func (c *runCmd) targets(config *daemon.ConfigFile) ([]daemon.Target, error) {
	args := c.Databases
	if len(args) == 0 && config != nil {
		var err error
		if args, err = config.Strings(databasesKey); err != nil {
			return nil, err
		}
	}
	targets, err := daemon.ParseTargets(args)
	if err != nil {
		return nil, err
	}
	if err := daemon.Distinct(targets); err != nil {
		return nil, err
	}
	if c.ForceReseed && len(targets) > 1 {
		return nil, daemon.Exit(daemon.ExitUsage, errors.New("--force-reseed works on one database, several are given"), "nothing was done")
	}
	return targets, checkFiles(targets)
}

// checkFiles reports every database that is not there.
func checkFiles(targets []daemon.Target) error {
	var errs []error
	for _, t := range targets {
		info, err := os.Stat(t.Path)
		if err == nil && !info.Mode().IsRegular() {
			err = fmt.Errorf("%s is not a regular file", t.Path)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("open database %s: %w", t.DB, err))
		}
	}
	return daemon.Exit(daemon.ExitNotFound, errors.Join(errs...), "nothing was done; start the application first, or correct the path")
}

// connection is the way to NATS, with the server when it is ours.
type connection struct {
	nc     *nats.Conn
	js     jetstream.JetStream
	server *embedded.Server // nil: external
}

// close ends the connection first: a server that shuts down cuts it.
func (c *connection) close() error {
	c.nc.Close()
	if c.server == nil {
		return nil
	}
	return c.server.Shutdown()
}

func (c *runCmd) connect(ctx context.Context, e *env, first daemon.Target) (*connection, error) {
	if e.nats.Chosen() {
		if c.Embedded != "" {
			return nil, daemon.Exit(daemon.ExitUsage,
				errors.New("--embedded excludes --server and --context (or NATS_URL and NATS_CONTEXT)"), "nothing was done")
		}
		nc, js, err := e.nats.Connect(ctx, command, e.logger)
		return &connection{nc: nc, js: js}, err
	}
	if e.nats.HasCredentials() {
		e.logger.Warn("nats credentials are not used: the embedded nats-server asks for none")
	}
	dir := c.Embedded
	if dir == "" {
		dir = filepath.Join(first.StateDir(), "nats")
		e.logger.Info("no --server given, nats runs in this process", "dir", dir, "listen", c.EmbeddedListen)
	}
	return c.embed(ctx, dir, e.logger)
}

func (c *runCmd) embed(ctx context.Context, dir string, logger *slog.Logger) (*connection, error) {
	listen := c.EmbeddedListen
	if listen == "none" {
		listen = ""
	}
	srv, err := embedded.New(embedded.Config{Dir: dir, Listen: listen, SyncInterval: c.EmbeddedSyncInterval, Logger: logger})
	if err != nil {
		return nil, daemon.Exit(daemon.ExitUsage, err, "nothing was done; see --embedded-listen and --embedded-sync-interval")
	}
	if err := srv.Start(ctx); err != nil {
		if errors.Is(err, embedded.ErrLocked) {
			err = daemon.Exit(daemon.ExitFenced, err, "nothing was changed; stop the other process, or connect to it with --server")
		}
		return nil, err
	}
	nc, err := srv.Connect(natsconn.Options(command, logger)...)
	if err != nil {
		return nil, errors.Join(err, srv.Shutdown())
	}
	js, err := natsconn.Attach(ctx, nc)
	if err != nil {
		nc.Close()
		return nil, errors.Join(err, srv.Shutdown())
	}
	return &connection{nc: nc, js: js, server: srv}, nil
}

func (c *runCmd) publish(ctx context.Context, e *env, conn *connection, targets []daemon.Target, from origins) (err error) {
	registry := daemon.NewRegistry()
	pubs, closeAll, err := c.newPublications(conn.js, registry, e.logger, targets, from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAll()) }()
	var runners []daemon.Runner
	var served []control.Publication
	for _, p := range pubs {
		runners = append(runners, p)
		served = append(served, control.Publication{DB: p.db, Status: p.Status, Sync: p.Sync, Full: p.Full})
	}
	svc, err := control.ServePublications(ctx, conn.nc, control.Config{Version: daemon.Version, Logger: e.logger}, served)
	if err != nil {
		return err
	}
	err = daemon.Serve(ctx, daemon.ServeConfig{Runners: runners, HTTPAddr: c.HTTP, Registry: registry, Logger: e.logger})
	return errors.Join(err, svc.Close())
}
