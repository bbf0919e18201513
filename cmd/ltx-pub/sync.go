package main

import (
	"context"
	"fmt"
	"time"

	"github.com/ltxstream/ltxstream/internal/control"
	"github.com/ltxstream/ltxstream/internal/daemon"
	"github.com/ltxstream/ltxstream/internal/natsconn"
)

type syncCmd struct {
	Name    string        `arg:"" help:"The database's name."`
	Timeout time.Duration `name:"timeout" env:"-" noconfig:"" default:"30s" help:"Exit with code 20 when it takes longer."`
	JSON    bool          `name:"json" env:"-" noconfig:"" help:"Print JSON."`
}

// Run prints the TXID that is acknowledged.
func (c *syncCmd) Run(ctx context.Context, e *env) error {
	db, err := parseDB(c.Name)
	if err != nil {
		return err
	}
	nc, _, err := e.nats.Connect(ctx, command+" sync", e.logger)
	if err != nil {
		return err
	}
	defer nc.Close()
	reached, err := control.Client{NC: nc}.Sync(ctx, db, c.Timeout)
	if err != nil {
		return natsconn.Diagnose(nc, err)
	}
	if c.JSON {
		return daemon.PrintJSON(e.stdout, reached)
	}
	_, err = fmt.Fprintln(e.stdout, reached.TXID)
	return err
}
