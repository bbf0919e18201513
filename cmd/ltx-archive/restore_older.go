package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/daemon"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/restore"
	"github.com/ltxstream/ltxstream/restore/generations"
)

// restoreOlder restores a database from its generations.
func (c *restoreCmd) restoreOlder(ctx context.Context, e *env, a *levels.Archive, target restore.Target) error {
	to, err := c.olderFlags.target(target.Time)
	if err != nil {
		return err
	}
	progress := newProgress(e.stderr, c.JSON)
	var plan *generations.Plan
	cfg := generations.Config{
		Store: a.Store(), DB: c.Name, Target: to, Path: c.Output, Force: c.Force, Check: c.check(),
		Options: restore.Options{Parallelism: c.Parallelism, Progress: progress.fetched},
		OnPlan: func(p *generations.Plan) error {
			if plan = p; c.DryRun {
				return errDryRun
			}
			progress.begin(p.Bytes())
			return nil
		},
		OnTrouble: func(err error) { e.logger.Warn("passed over", "db", c.Name, "err", err) },
	}
	if c.DryRun {
		cfg.Path, cfg.Force = filepath.Join(os.TempDir(), "ltx-archive-dry-run"), true
	}
	made, err := generations.Restore(ctx, cfg)
	progress.end(err == nil)
	switch {
	case errors.Is(err, errDryRun):
		return c.printOlder(e, newOlderResult(plan))
	case ctx.Err() != nil:
		return daemon.Exit(daemon.ExitInterrupted, err, "no output was made, and nothing is left of it; run it again")
	case err != nil:
		return err
	}
	r := newOlderResult(made.Plan)
	r.Output, r.Index, r.Offset, r.Size = c.Output, made.Index, made.Offset, made.Size
	return c.printOlder(e, r)
}

// olderResult is what a restore did, or would do.
type olderResult struct {
	Format     string            `json:"format"` // "generations"
	Output     string            `json:"output,omitempty"`
	Generation string            `json:"generation"`
	Snapshot   generations.Index `json:"snapshot"`
	Index      generations.Index `json:"index"`  // of the last WAL
	Offset     int64             `json:"offset"` // in it, behind the last transaction; not of a dry run
	Timestamp  *time.Time        `json:"timestamp,omitempty"`
	Size       int64             `json:"size"` // bytes of the database; not of a dry run
	Bytes      int64             `json:"bytes"`
	Requests   int64             `json:"requests"`
	Files      []planFile        `json:"files"`
}

func newOlderResult(p *generations.Plan) olderResult {
	r := olderResult{
		Format: formatOlder, Generation: p.Generation, Snapshot: p.Snapshot.Index, Index: p.Last(),
		Timestamp: known(p.Time()), Bytes: p.Bytes(), Requests: p.Requests(),
	}
	for _, o := range p.Objects() {
		r.Files = append(r.Files, planFile{Key: o.Key, Size: o.Size})
	}
	return r
}

func (c *restoreCmd) printOlder(e *env, r olderResult) error {
	if c.JSON {
		return daemon.PrintJSON(e.stdout, r)
	}
	what := "restored"
	if c.DryRun {
		for _, f := range r.Files {
			fmt.Fprintf(e.stdout, "%s  %s\n", f.Key, sized(f.Size))
		}
		what = "would restore"
	}
	when := ""
	if r.Timestamp != nil {
		when = " of " + r.Timestamp.Format(ltx.RFC3339Milli)
	}
	size := ""
	if !c.DryRun {
		size = sized(r.Size) + ", "
	}
	_, err := fmt.Fprintf(e.stdout, "%s generation %s to index %s%s, %sfrom %d files: %s in %d requests\n",
		what, r.Generation, r.Index, when, size, len(r.Files), sized(r.Bytes), r.Requests)
	return err
}
