package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/alecthomas/kong"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/ltxstream/ltxstream/internal/daemon"
	"github.com/ltxstream/ltxstream/internal/natsconn"
	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/objstore/open"
)

const command = "ltx-archive"

func main() { os.Exit(daemon.Main(run)) }

// cli is the command line. Flags above the subcommands belong to all of them.
type cli struct {
	Config  string           `name:"config" env:"LTX_CONFIG" placeholder:"FILE" help:"YAML file with the long flag names as keys, and a list \"databases\"; $${NAME} is replaced by the environment variable."`
	Version kong.VersionFlag `name:"version" env:"-" help:"Print the version."`
	daemon.LogFlags
	natsconn.Flags `group:"NATS connection"`

	Run     runCmd     `cmd:"" default:"withargs" help:"Archive databases of the stream (the default command)."`
	Restore restoreCmd `cmd:"" help:"Bring a database back, as it was at a point."`
	Ls      lsCmd      `cmd:"" help:"List what an archive holds."`
	Verify  verifyCmd  `cmd:"" help:"Check that an archive is whole."`
	Prune   pruneCmd   `cmd:"" help:"Delete what is not to be kept."`
}

// env is what a subcommand works with.
type env struct {
	nats   natsconn.Flags
	config *daemon.ConfigFile // nil without --config
	logger *slog.Logger
	stdout io.Writer
	stderr io.Writer
}

// run is the command: arguments in, exit code out.
func run(ctx context.Context, args []string, _ io.Reader, stdout, stderr io.Writer) int {
	var c cli
	parsed, err := daemon.Parse(&c, args, stdout, stderr, []string{databasesKey},
		kong.Name(command),
		kong.Description("Keeps the history of SQLite databases that ltx-pub publishes to NATS JetStream, and restores any point of it. URL is "+open.Forms+"."),
		kong.Vars{"version": daemon.VersionText(command)},
		kong.DefaultEnvars("LTX"))
	if errors.Is(err, daemon.ErrHelped) {
		return daemon.ExitOK
	}
	if err != nil {
		return daemon.Report(stderr, command, err)
	}
	logger, err := c.Logger(stderr)
	if err != nil {
		return daemon.Report(stderr, command, err)
	}
	parsed.BindTo(ctx, (*context.Context)(nil))
	err = parsed.Run(&env{nats: c.Flags, config: parsed.Config, logger: logger, stdout: stdout, stderr: stderr})
	return daemon.Report(stderr, command, explain(err))
}

// checkName refuses what is no database's name in any archive.
func checkName(name string) error {
	return daemon.Exit(daemon.ExitUsage, levels.CheckDB(name), "nothing was done; see which databases there are: ltx-archive ls URL")
}

// notFound says that an archive has nothing of a database, and how it is called
// if the URL names its folder, as Litestream's do.
func notFound(ctx context.Context, a *levels.Archive, name string) error {
	hint := "see which databases there are: ltx-archive ls URL"
	if root, err := a.Has(ctx, levels.Root); err == nil && root {
		hint = "the URL is the folder of a database itself: say \".\" for NAME"
	}
	return daemon.Exit(daemon.ExitNotFound, fmt.Errorf("archive %s has no files of database %q", a, name), hint)
}

// archive opens the archive at a URL. connect is used for nats:// URLs alone.
func (e *env) archive(ctx context.Context, url string, write bool, connect func(context.Context) (jetstream.JetStream, error)) (*levels.Archive, error) {
	return open.Archive(ctx, url, open.Options{Write: write, NATS: connect, Retry: objstore.RetryConfig{Logger: e.logger}})
}

// connection is made when something needs it.
func (e *env) connection() *natsconn.Lazy {
	return &natsconn.Lazy{Flags: e.nats, Name: command, Logger: e.logger}
}

// reader opens an archive to be read, with a connection of its own where it
// needs one; close ends both.
func (e *env) reader(ctx context.Context, url string) (a *levels.Archive, closeAll func(), err error) {
	link := e.connection()
	a, err = e.archive(ctx, url, false, link.JetStream)
	if err != nil {
		link.Close()
		return nil, nil, err
	}
	return a, func() {
		if err := a.Store().Close(); err != nil {
			e.logger.Debug("archive not closed cleanly", "err", err)
		}
		link.Close()
	}, nil
}
