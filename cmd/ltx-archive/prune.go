package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/compactor"
	"github.com/ltxstream/ltxstream/internal/daemon"
	"github.com/ltxstream/ltxstream/objstore/levels"
)

type pruneCmd struct {
	URL    string `arg:"" name:"URL" help:"The archive."`
	Name   string `arg:"" name:"NAME" help:"The database's name; \".\" where URL is its folder itself."`
	DryRun bool   `name:"dry-run" env:"-" noconfig:"" help:"Show what would be deleted."`
	JSON   bool   `name:"json" env:"-" noconfig:"" help:"Print JSON."`
	keepFlags
}

// pruned is what a prune did, or would do.
type pruned struct {
	Deleted []fileListing  `json:"deleted"`
	Bytes   int64          `json:"bytes"`
	Anchor  ltx.TXID       `json:"anchor,omitempty"` // the snapshot on which the oldest points rest
	Kept    []keptSnapshot `json:"kept"`
}

type keptSnapshot struct {
	TXID      ltx.TXID  `json:"txid"`
	Timestamp time.Time `json:"timestamp"`
	Reasons   []string  `json:"reasons"`
}

// Run prunes.
func (c *pruneCmd) Run(ctx context.Context, e *env) error {
	if err := errors.Join(levels.CheckDB(c.Name), c.policy().Validate()); err != nil {
		return daemon.Exit(daemon.ExitUsage, err, "nothing was done")
	}
	a, closeAll, err := e.reader(ctx, c.URL)
	if err != nil {
		return err
	}
	defer closeAll()
	comp, err := compactor.New(ctx, compactor.Config{Archive: a, DB: c.Name, Policy: c.policy(), Logger: e.logger})
	if err != nil {
		return err
	}
	if comp.End().Max == 0 {
		return notFound(ctx, a, c.Name)
	}
	now := time.Now()
	verdict := compactor.Keep(comp.Inventory(), c.policy(), now)
	p := pruned{Deleted: []fileListing{}, Kept: []keptSnapshot{}, Anchor: verdict.Anchor.Max}
	for _, f := range verdict.Delete {
		p.Bytes += f.Size
		p.Deleted = append(p.Deleted, fileListing{Level: f.Level, Min: f.Min, Max: f.Max, Size: f.Size, Timestamp: known(f.Timestamp), Key: a.Key(c.Name, f)})
	}
	for _, f := range comp.Inventory().Level(levels.Snapshot) {
		if why := verdict.Reasons[f]; why != nil {
			p.Kept = append(p.Kept, keptSnapshot{TXID: f.Max, Timestamp: f.Timestamp, Reasons: why})
		}
	}
	if !c.DryRun {
		if _, err := comp.Prune(ctx, now); err != nil {
			return err
		}
	}
	if c.JSON {
		return daemon.PrintJSON(e.stdout, p)
	}
	return c.print(e, p)
}

func (c *pruneCmd) print(e *env, p pruned) error {
	verb := "deleted"
	if c.DryRun {
		verb = "would delete"
		for _, f := range p.Deleted {
			fmt.Fprintf(e.stdout, "%s  %s  %s\n", f.Key, sized(f.Size), clock(f.Timestamp))
		}
	}
	for _, k := range p.Kept {
		fmt.Fprintf(e.stdout, "snapshot %s of %s stays: %s\n", k.TXID, k.Timestamp.Format(ltx.RFC3339Milli), strings.Join(k.Reasons, ", "))
	}
	_, err := fmt.Fprintf(e.stdout, "%s %d files, %s\n", verb, len(p.Deleted), sized(p.Bytes))
	return err
}
