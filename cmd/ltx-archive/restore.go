package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/compactor"
	"github.com/ltxstream/ltxstream/internal/daemon"
	"github.com/ltxstream/ltxstream/internal/natsconn"
	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/internal/tail"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/restore"
	"github.com/ltxstream/ltxstream/wire"
)

type restoreCmd struct {
	URL    string `arg:"" name:"URL" help:"The archive."`
	Name   string `arg:"" name:"NAME" help:"The database's name; \".\" where URL is its folder itself, as Litestream's are."`
	Output string `arg:"" name:"OUTPUT" help:"Path of the database to make."`

	Timestamp string `name:"timestamp" env:"-" noconfig:"" placeholder:"TIME" xor:"target" help:"Restore the last point at or before this time: RFC 3339, a local date and time, or \"10 minutes ago\"."`
	TXID      string `name:"txid" env:"-" noconfig:"" xor:"target,format" help:"Restore exactly this transaction, 16 hex digits."`
	olderFlags
	NoStream bool   `name:"no-stream" env:"-" noconfig:"" help:"Take the archive alone, not the newest transactions that are still in the stream only. So it is for names that no stream can have, such as app.db."`
	Stream   string `name:"stream" default:"LTX" help:"JetStream stream."`

	DryRun      bool   `name:"dry-run" env:"-" noconfig:"" help:"Show which files would be read, how many bytes, how many requests."`
	Force       bool   `name:"force" env:"-" noconfig:"" help:"Replace OUTPUT."`
	Parallelism int    `name:"parallelism" default:"8" help:"Requests at a time."`
	Integrity   string `name:"integrity-check" default:"quick" enum:"none,quick,full" help:"What SQLite checks before the database gets its name: none, quick (quick_check) or full (integrity_check)."`
	JSON        bool   `name:"json" env:"-" noconfig:"" help:"Print JSON, progress too."`
}

// Run restores.
func (c *restoreCmd) Run(ctx context.Context, e *env) error {
	target, err := c.parse(time.Now())
	if err != nil {
		return err
	}
	if !c.DryRun {
		if err := restore.CheckOutput(c.Output, c.Force); err != nil {
			return err
		}
	}
	a, closeAll, err := e.reader(ctx, c.URL)
	if err != nil {
		return err
	}
	defer closeAll()
	catalog, err := restore.Read(ctx, restore.Of(a, c.Name))
	if err != nil {
		return err
	}
	if older, err := c.chooseOlder(ctx, e, a, catalog, target); older || err != nil {
		if err == nil {
			err = c.restoreOlder(ctx, e, a, target)
		}
		return err
	}
	cleanUp, err := c.addTail(ctx, e, a, catalog, target)
	if err != nil {
		return err
	}
	defer cleanUp()
	progress := newProgress(e.stderr, c.JSON)
	var plan *restore.Job
	cfg := restore.Config{
		Catalog: catalog, Target: target, Path: c.Output, Force: c.Force, Check: c.check(),
		Options: restore.Options{Parallelism: c.Parallelism, Progress: progress.fetched},
		OnPlan: func(j *restore.Job) error {
			if plan = j; c.DryRun {
				return errDryRun
			}
			progress.begin(j.Bytes)
			return nil
		},
		OnTrouble: func(err error) { e.logger.Warn("another plan is tried", "err", err) },
	}
	if c.DryRun {
		cfg.Path, cfg.Force = filepath.Join(os.TempDir(), "ltx-archive-dry-run"), true
	}
	job, err := restore.Restore(ctx, cfg)
	progress.end(err == nil)
	if errors.Is(err, errDryRun) {
		return c.print(e, plan, catalog.Sources)
	}
	if err != nil {
		return c.explain(ctx, a, err)
	}
	return c.print(e, job, catalog.Sources)
}

var errDryRun = errors.New("dry run")

func (c *restoreCmd) explain(ctx context.Context, a *levels.Archive, err error) error {
	if plan, ok := errors.AsType[*restore.PlanError](err); ok && plan.Want == 0 {
		err = notFound(ctx, a, c.Name)
	}
	if ctx.Err() != nil {
		return daemon.Exit(daemon.ExitInterrupted, err, "what was fetched is kept beside OUTPUT under a hidden name; the same command goes on there")
	}
	return err
}

func (c *restoreCmd) parse(now time.Time) (target restore.Target, err error) {
	err = errors.Join(levels.CheckDB(c.Name), c.olderFlags.check())
	if _, none := wire.ParseDB(c.Name); none != nil {
		c.NoStream = true // others name databases in other ways
	}
	if err == nil && c.TXID != "" {
		if target.TXID, err = ltx.ParseTXID(c.TXID); err != nil || target.TXID == 0 {
			err = fmt.Errorf("transaction %q: want 16 hex digits, not zero", c.TXID)
		}
	}
	if err == nil && c.Timestamp != "" {
		target.Time, err = parseTime(c.Timestamp, now)
	}
	return target, daemon.Exit(daemon.ExitUsage, err, "nothing was done")
}

// addTail adds to what the archive has, where the target may lie behind its end,
// the newest end of the stream.
func (c *restoreCmd) addTail(ctx context.Context, e *env, a *levels.Archive, catalog *restore.Catalog, target restore.Target) (cleanUp func(), err error) {
	nothing := func() {}
	if c.NoStream {
		return nothing, nil
	}
	db := wire.DB(c.Name)
	after, covered, err := c.covered(ctx, a, catalog.Newest(), target)
	if err != nil || covered {
		return nothing, err
	}
	beside := filepath.Dir(c.Output) // where there is room for a database
	if c.DryRun {
		beside = "" // nothing is made there, the directory may be missing
	}
	dir, err := os.MkdirTemp(beside, ".ltx-tail-*")
	if err != nil {
		return nothing, err
	}
	cleanUp = func() { _ = os.RemoveAll(dir) } // a leftover is found by its name
	fetched, err := c.tail(ctx, e, db, dir, after, target)
	if err == nil && fetched.Files > 0 {
		e.logger.Info("newest transactions taken from the stream", "db", string(db), "files", fetched.Files, "to", fetched.Last.TXID)
		err = catalog.Add(ctx, restore.Of(fetched.Archive, string(db)))
	}
	if err != nil {
		cleanUp()
		return nothing, err
	}
	return cleanUp, nil
}

// covered reports where the archive ends, and whether the target lies before.
func (c *restoreCmd) covered(ctx context.Context, a *levels.Archive, end levels.File, target restore.Target) (after ltx.Pos, covered bool, err error) {
	if end.Max == 0 {
		root, err := a.Has(ctx, levels.Root)
		if root {
			err = notFound(ctx, a, c.Name)
		}
		return after, false, err
	}
	if target.TXID != 0 && target.TXID <= end.Max {
		return after, true, nil
	}
	if !target.Time.IsZero() {
		stamped, err := a.StampedByHeader(ctx, c.Name, end)
		if err != nil || stamped.Timestamp.After(target.Time) {
			return after, err == nil, err
		}
	}
	post, err := compactor.PostOf(ctx, a, c.Name, end)
	return ltx.NewPos(end.Max, post), false, err
}

// tail fetches the end of the stream.
func (c *restoreCmd) tail(ctx context.Context, e *env, db wire.DB, dir string, after ltx.Pos, target restore.Target) (tail.Fetched, error) {
	nc, js, err := e.nats.Connect(ctx, command+" restore", e.logger)
	if err != nil {
		return tail.Fetched{}, daemon.Exit(daemon.Code(err), fmt.Errorf("the newest transactions may be in the stream only: %w", err), "no output was made; --no-stream restores what the archive has")
	}
	defer nc.Close()
	f, err := tail.Fetch(ctx, tail.Config{
		JS: js, Stream: c.Stream, DB: db, After: after, Dir: dir, Logger: e.logger,
		Enough: func(next wire.Meta) bool {
			return target.TXID != 0 && next.Min > target.TXID || !target.Time.IsZero() && next.Timestamp.After(target.Time)
		},
	})
	if errors.Is(err, stream.ErrNoStream) && !after.IsZero() {
		err = daemon.Exit(daemon.ExitNotFound, err, "no output was made; --no-stream restores what the archive has, or name the stream with --stream")
	}
	return f, natsconn.Diagnose(nc, err)
}

// check is what SQLite says of the finished database.
func (c *restoreCmd) check() func(context.Context, string) error {
	pragma := map[string]string{"quick": "quick_check", "full": "integrity_check"}[c.Integrity]
	if pragma == "" {
		return nil
	}
	return func(ctx context.Context, path string) error { return integrity(ctx, path, pragma) }
}

// result is what a restore did, or would do.
type result struct {
	Format    string       `json:"format"` // "ltx"
	Output    string       `json:"output,omitempty"`
	TXID      ltx.TXID     `json:"txid"`
	Checksum  ltx.Checksum `json:"checksum"`
	Timestamp time.Time    `json:"timestamp"`
	Size      int64        `json:"size"` // bytes of the database
	Bytes     int64        `json:"bytes"`
	Requests  int64        `json:"requests"`
	Files     []planFile   `json:"files"`
}

type planFile struct {
	Key  string `json:"key"`
	Size int64  `json:"size"`
}

func (c *restoreCmd) print(e *env, j *restore.Job, sources []restore.Source) error {
	r := result{
		Format: "ltx",
		TXID:   j.Header.MaxTXID, Checksum: j.Post, Timestamp: restore.TimeOf(j.Header),
		Size:  int64(j.Header.Commit) * int64(j.Header.PageSize),
		Bytes: j.Bytes, Requests: j.Requests,
	}
	if !c.DryRun {
		r.Output = c.Output
	}
	for _, f := range j.Plan {
		r.Files = append(r.Files, planFile{Key: sources[f.Source].Key(f.File), Size: f.Size})
	}
	if c.JSON {
		return daemon.PrintJSON(e.stdout, r)
	}
	if c.DryRun {
		for _, f := range r.Files {
			fmt.Fprintf(e.stdout, "%s  %s\n", f.Key, sized(f.Size))
		}
	}
	verb := map[bool]string{true: "would restore", false: "restored"}[c.DryRun]
	_, err := fmt.Fprintf(e.stdout, "%s TXID %s of %s, %s, from %d files: %s in %d requests\n",
		verb, r.TXID, r.Timestamp.Format(ltx.RFC3339Milli), sized(r.Size), len(r.Files), sized(r.Bytes), r.Requests)
	return err
}
