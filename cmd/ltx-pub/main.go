package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"

	"github.com/alecthomas/kong"

	"github.com/ltxstream/ltxstream/internal/daemon"
	"github.com/ltxstream/ltxstream/internal/natsconn"
)

const command = "ltx-pub"

func main() { os.Exit(daemon.Main(run)) }

// cli is the command line. Flags above the subcommands belong to all of them.
type cli struct {
	Config  string           `name:"config" env:"LTX_CONFIG" placeholder:"FILE" help:"YAML file with the long flag names as keys, and a list \"databases\"; $${NAME} is replaced by the environment variable."`
	Version kong.VersionFlag `name:"version" env:"-" help:"Print the version."`
	daemon.LogFlags
	natsconn.Flags `group:"NATS connection"`

	Run    runCmd    `cmd:"" default:"withargs" help:"Publish databases (the default command)."`
	Status statusCmd `cmd:"" help:"Show what running publishers do."`
	Sync   syncCmd   `cmd:"" help:"Return once everything committed so far is acknowledged by the stream."`

	ConfigCmd configCmd `cmd:"" name:"config" help:"Configurations of other tools."`
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
		kong.Description("Publishes the changes of SQLite databases to NATS JetStream, while applications write them."),
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
	return daemon.Report(stderr, command, parsed.Run(&env{nats: c.Flags, config: parsed.Config, logger: logger, stdout: stdout, stderr: stderr}))
}
