package main

import (
	"context"
	"time"

	"github.com/ltxstream/ltxstream/internal/control"
	"github.com/ltxstream/ltxstream/internal/daemon"
	"github.com/ltxstream/ltxstream/internal/natsconn"
	"github.com/ltxstream/ltxstream/wire"
)

type statusCmd struct {
	Name    string        `arg:"" optional:"" help:"One database; without it all of them."`
	Timeout time.Duration `name:"timeout" env:"-" noconfig:"" default:"5s" help:"How long to wait for the first answer."`
	JSON    bool          `name:"json" env:"-" noconfig:"" help:"Print JSON."`
}

// Run asks every subscriber.
func (c *statusCmd) Run(ctx context.Context, e *env) error {
	db, err := optionalDB(c.Name)
	if err != nil {
		return err
	}
	nc, _, err := e.nats.Connect(ctx, command+" status", e.logger)
	if err != nil {
		return err
	}
	defer nc.Close()
	raw, err := control.Client{NC: nc}.Status(ctx, control.Subscribers, db, c.Timeout)
	if err != nil {
		return natsconn.Diagnose(nc, err)
	}
	if c.JSON {
		return daemon.PrintJSON(e.stdout, raw)
	}
	return printStatus(e.stdout, raw)
}

func optionalDB(name string) (wire.DB, error) {
	if name == "" {
		return "", nil
	}
	return parseDB(name)
}

func parseDB(name string) (wire.DB, error) {
	db, err := wire.ParseDB(name)
	return db, daemon.Exit(daemon.ExitUsage, err, "")
}
