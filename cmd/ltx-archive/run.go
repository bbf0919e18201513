package main

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/ltxstream/ltxstream/archiver"
	"github.com/ltxstream/ltxstream/compactor"
	"github.com/ltxstream/ltxstream/internal/control"
	"github.com/ltxstream/ltxstream/internal/daemon"
	"github.com/ltxstream/ltxstream/internal/natsconn"
	"github.com/ltxstream/ltxstream/wire"
)

const databasesKey = "databases"

type runCmd struct {
	Names []string `arg:"" optional:"" name:"NAME" help:"Databases; without any, all of the stream, those that come later too."`

	To     []string      `name:"to" placeholder:"[NAME=]URL" sep:"none" help:"Archive to write, each database in a folder of its name; with NAME, the folder of that database alone, as Litestream's URLs are. May be given several times."`
	Stream string        `name:"stream" default:"LTX" help:"JetStream stream."`
	Flush  time.Duration `name:"flush" default:"10s" help:"How long a transaction waits at most until it is written."`

	Windows          []time.Duration `name:"windows" default:"5m,1h" help:"Lengths of the levels above the first, in which files are merged."`
	SnapshotInterval time.Duration   `name:"snapshot-interval" default:"24h" help:"How often a snapshot is made, while there is something new."`
	keepFlags

	TrimAfter  time.Duration `name:"trim-after" default:"1h" help:"Trim from a stream without an age limit what all archives have had for so long; 0 leaves it alone."`
	Litestream bool          `name:"no-checksums" help:"Leave database checksums out of the files, for Litestream 0.5.15 to 0.5.17."`
	StageDir   string        `name:"stage-dir" placeholder:"DIR" help:"Where files wait for the next flush; may be lost. Default: a new temporary directory."`
	Merges     int           `name:"merges" default:"4" help:"Merges at a time."`
	LeaseTTL   time.Duration `name:"lease-ttl" default:"5s" help:"How long after it fell silent another ltx-archive takes over."`
	HTTP       string        `name:"http" placeholder:"ADDR" help:"Serve /healthz, /readyz?max_lag=30s, /metrics and /status."`
}

// keepFlags are a retention policy.
type keepFlags struct {
	KeepWindow  time.Duration `name:"keep-window" default:"24h" help:"For how long every point that was written stays restorable; 0: for ever."`
	KeepLast    int           `name:"keep-last" help:"Keep the last so many snapshots."`
	KeepHourly  int           `name:"keep-hourly" help:"Keep the last snapshot of each of so many hours that have one."`
	KeepDaily   int           `name:"keep-daily" default:"7" help:"… days."`
	KeepWeekly  int           `name:"keep-weekly" default:"4" help:"… weeks."`
	KeepMonthly int           `name:"keep-monthly" default:"12" help:"… months."`
	KeepYearly  int           `name:"keep-yearly" help:"… years."`
	KeepGrace   time.Duration `name:"keep-grace" default:"1h" help:"How much longer a file is left alone, for restores under way."`
}

func (k keepFlags) policy() compactor.Policy {
	return compactor.Policy{
		Window: k.KeepWindow, Last: k.KeepLast, Hourly: k.KeepHourly, Daily: k.KeepDaily,
		Weekly: k.KeepWeekly, Monthly: k.KeepMonthly, Yearly: k.KeepYearly, Grace: k.KeepGrace,
	}
}

// Run archives until ctx ends.
func (c *runCmd) Run(ctx context.Context, e *env) error {
	dbs, err := c.databases(e.config)
	if err != nil {
		return err
	}
	if len(c.To) == 0 {
		return daemon.Exit(daemon.ExitUsage, errors.New("no archive to write"), "nothing was done; name one with --to URL")
	}
	places, err := c.places(dbs)
	if err != nil {
		return err
	}
	schedule := compactor.Schedule{Windows: c.Windows, Snapshot: c.SnapshotInterval}
	err = errors.Join(schedule.Validate(), c.policy().Validate())
	if c.SnapshotInterval == 0 {
		err = errors.Join(err, errors.New("snapshot interval 0: want a positive duration; a long one makes few snapshots"))
	}
	if err != nil {
		return daemon.Exit(daemon.ExitUsage, err, "nothing was done")
	}
	link := e.connection()
	defer link.Close()
	dests, closeAll, err := c.destinations(ctx, e, link, places)
	if err != nil {
		return err
	}
	defer closeAll()
	js, err := link.JetStream(ctx)
	if err != nil {
		return err
	}
	return natsconn.Diagnose(link.Conn(), c.archive(ctx, e, archiver.Config{
		JS: js, Stream: c.Stream, DBs: dbs, Destinations: dests, FlushInterval: c.Flush,
		Schedule: schedule, Policy: c.policy(), TrimAfter: c.TrimAfter, Parallelism: c.Merges, LeaseTTL: c.LeaseTTL,
		AskFull: func(ctx context.Context, db wire.DB) error {
			_, err := control.Client{NC: link.Conn()}.Full(ctx, db, askTimeout)
			return err
		},
		Logger: e.logger,
	}))
}

// databases are those of the command line, or else of the file.
func (c *runCmd) databases(config *daemon.ConfigFile) (dbs []wire.DB, err error) {
	names := c.Names
	if len(names) == 0 && config != nil {
		if names, err = config.Strings(databasesKey); err != nil {
			return nil, err
		}
	}
	var errs []error
	for _, name := range names {
		db, err := wire.ParseDB(name)
		dbs, errs = append(dbs, db), append(errs, err)
	}
	return dbs, daemon.Exit(daemon.ExitUsage, errors.Join(errs...), "nothing was done")
}

// archive runs an archiver with the rest of its configuration.
func (c *runCmd) archive(ctx context.Context, e *env, cfg archiver.Config) (err error) {
	stage, cleanUp, err := c.stage()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cleanUp()) }()
	registry := daemon.NewRegistry()
	cfg.StageDir, cfg.Metrics = stage, archiver.NewMetrics(registry)
	a, err := archiver.New(cfg)
	if err != nil {
		return daemon.Exit(daemon.ExitUsage, err, "nothing was done")
	}
	return daemon.Serve(ctx, daemon.ServeConfig{Runners: []daemon.Runner{role{a}}, HTTPAddr: c.HTTP, Registry: registry, Logger: e.logger})
}

const askTimeout = time.Minute

// stage makes the stage directory; cleanUp removes one that is ours alone.
func (c *runCmd) stage() (dir string, cleanUp func() error, err error) {
	if c.StageDir != "" {
		return c.StageDir, func() error { return nil }, os.MkdirAll(c.StageDir, 0o755)
	}
	dir, err = os.MkdirTemp("", "ltx-archive-*")
	return dir, func() error { return os.RemoveAll(dir) }, err
}

// places are where to write; what goes to a place of its own must be archived.
func (c *runCmd) places(dbs []wire.DB) ([]daemon.Place, error) {
	places, err := daemon.ParsePlaces("--to", c.To)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, p := range places {
		if p.DB != "" && len(dbs) > 0 && !slices.Contains(dbs, p.DB) {
			errs = append(errs, fmt.Errorf("--to %s=%s: %s is not among the databases named", p.DB, p.URL, p.DB))
		}
	}
	return places, daemon.Exit(daemon.ExitUsage, errors.Join(errs...), "nothing was done")
}

func (c *runCmd) destinations(ctx context.Context, e *env, link *natsconn.Lazy, places []daemon.Place) (dests []archiver.Destination, closeAll func(), err error) {
	closeAll = func() {
		for _, d := range dests {
			if err := d.Archive.Store().Close(); err != nil {
				e.logger.Warn("archive not closed cleanly", "dest", d.Name, "err", err)
			}
		}
	}
	for _, p := range places {
		a, err := e.archive(ctx, p.URL, true, link.JetStream)
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		dests = append(dests, archiver.Destination{Name: destName(a.String()), Archive: a, DB: p.DB, NoChecksums: c.Litestream})
	}
	return dests, closeAll, nil
}

// destName names a destination among all that are ever written from the stream:
// its kind and a hash of its URL.
func destName(url string) string {
	scheme, _, _ := strings.Cut(url, ":")
	h := fnv.New32a()
	_, _ = h.Write([]byte(url)) // never fails
	return fmt.Sprintf("%s-%08x", scheme, h.Sum32())
}

// role is the archiver as the health endpoints see it.
type role struct{ *archiver.Archiver }

func (role) Name() string  { return "archive" }
func (r role) Status() any { return r.Archiver.Status() }
