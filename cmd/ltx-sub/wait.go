package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/control"
	"github.com/ltxstream/ltxstream/internal/daemon"
	"github.com/ltxstream/ltxstream/internal/natsconn"
)

type waitCmd struct {
	Name    string        `arg:"" help:"The database's name."`
	TXID    string        `name:"txid" env:"-" noconfig:"" required:"" placeholder:"T" help:"Transaction id: 16 hex digits, as ltx-pub sync prints it."`
	ID      string        `name:"id" env:"-" noconfig:"" help:"One replica, as status names it; without it all that answer. With it, it returns sooner: nobody else needs to be waited for."`
	Timeout time.Duration `name:"timeout" env:"-" noconfig:"" default:"5s" help:"Exit with code 20 when it takes longer."`
	JSON    bool          `name:"json" env:"-" noconfig:"" help:"Print JSON."`
}

// Run prints the position of each replica.
func (c *waitCmd) Run(ctx context.Context, e *env) error {
	db, err := parseDB(c.Name)
	if err != nil {
		return err
	}
	if _, err := optionalDB(c.ID); err != nil { // an id keeps the rule of names
		return err
	}
	txid, err := ltx.ParseTXID(c.TXID)
	if err != nil || txid == 0 {
		return daemon.Exit(daemon.ExitUsage, fmt.Errorf("--txid %q is not a transaction id: want 16 hex digits, not zero", c.TXID), "")
	}
	nc, _, err := e.nats.Connect(ctx, command+" wait", e.logger)
	if err != nil {
		return err
	}
	defer nc.Close()
	reached, err := control.Client{NC: nc}.Wait(ctx, db, c.ID, txid, c.Timeout)
	return errors.Join(natsconn.Diagnose(nc, err), c.print(e, reached))
}

func (c *waitCmd) print(e *env, reached []control.Reached) error {
	if c.JSON {
		return daemon.PrintJSON(e.stdout, reached)
	}
	for _, r := range reached {
		if _, err := fmt.Fprintln(e.stdout, r.ID, r.TXID); err != nil {
			return err
		}
	}
	return nil
}
