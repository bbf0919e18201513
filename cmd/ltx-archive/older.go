package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ltxstream/ltxstream/internal/daemon"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/restore"
	"github.com/ltxstream/ltxstream/restore/generations"
)

// The older format: the generations of Litestream 0.3. An archive may have a database
// in both.

// olderFlags choose a point of the older format.
type olderFlags struct {
	Generation string `name:"generation" env:"-" noconfig:"" xor:"format" placeholder:"NAME" help:"Restore from this generation of an archive of Litestream 0.3, 16 hex digits."`
	Index      string `name:"index" env:"-" noconfig:"" xor:"target" placeholder:"HEX" help:"Restore to the end of this WAL index of a generation; without --generation, of the one that was written last."`
}

func (f olderFlags) given() bool { return f.Generation != "" || f.Index != "" }

func (f olderFlags) check() (err error) {
	if f.Generation != "" && !generations.IsName(f.Generation) {
		err = fmt.Errorf("generation %q: want 16 hex digits", f.Generation)
	}
	_, bad := f.target(time.Time{})
	return errors.Join(err, bad)
}

func (f olderFlags) target(at time.Time) (generations.Target, error) {
	t := generations.Target{Generation: f.Generation, Time: at}
	if f.Index == "" {
		return t, nil
	}
	i, err := generations.ParseIndex(f.Index)
	t.Index = &i
	return t, err
}

// chooseOlder reports whether the older format is the one to restore: it is asked
// for, it is the only one, or what it has is newer.
func (c *restoreCmd) chooseOlder(ctx context.Context, e *env, a *levels.Archive, catalog *restore.Catalog, target restore.Target) (bool, error) {
	if target.TXID != 0 {
		return false, nil
	}
	older, err := generations.Read(ctx, a.Store(), c.Name)
	switch {
	case err != nil:
		return false, err
	case c.given() && len(older) == 0:
		err := fmt.Errorf("archive %s has no generations of database %q", a, c.Name)
		return false, daemon.Exit(daemon.ExitNotFound, err, "no output was made; see what there is: ltx-archive ls URL")
	case c.given() || len(older) == 0:
		return c.given(), nil
	}
	if len(catalog.Files) == 0 {
		e.logger.Info("the archive has generations of Litestream 0.3 alone: the stream is not asked for more", "db", c.Name)
		return true, nil
	}
	have, err := newestOf(ctx, a, c.Name, older, catalog, target.Time)
	if err != nil {
		return false, err
	}
	newer := have.generations.After(have.ltx)
	e.logger.Info("the archive has this database in two formats: the one with the newer point is restored", "db", c.Name,
		"format", map[bool]string{true: formatOlder, false: formatLTX}[newer], "generations_to", have.generations, "ltx_to", have.ltx)
	return newer, nil
}

// Formats by name.
const (
	formatOlder = "generations"
	formatLTX   = "ltx"
)

// newest is when each format has its newest point; for a time, its newest whole
// database at or before that. Zero: none.
type newest struct{ generations, ltx time.Time }

func newestOf(ctx context.Context, a *levels.Archive, db string, older []generations.Generation, catalog *restore.Catalog, at time.Time) (n newest, err error) {
	if !at.IsZero() {
		n.generations = generations.NewestSnapshot(older, at)
		base, _, err := catalog.BaseBefore(ctx, at)
		n.ltx = base.Timestamp
		return n, err
	}
	_, n.generations = generations.Newest(older).Bounds()
	last, err := a.StampedByHeader(ctx, db, catalog.Newest())
	n.ltx = last.Timestamp
	return n, err
}

// generationListing is what an archive has of one generation.
type generationListing struct {
	Name      string                `json:"name"`
	Snapshots int                   `json:"snapshots"`
	Segments  int                   `json:"segments"`
	Bytes     int64                 `json:"bytes"`
	Indexes   []generations.Stretch `json:"indexes"` // each of which can be restored
	First     *time.Time            `json:"first_timestamp,omitempty"`
	Last      *time.Time            `json:"last_timestamp,omitempty"`
	Files     []olderFile           `json:"files,omitempty"`
}

type olderFile struct {
	Key       string     `json:"key"`
	Size      int64      `json:"size"`
	Timestamp *time.Time `json:"timestamp,omitempty"`
}

// listOlder lists the generations of a database, the oldest first.
func listOlder(ctx context.Context, a *levels.Archive, db string, files bool) ([]generationListing, error) {
	all, err := generations.Read(ctx, a.Store(), db)
	if err != nil {
		return nil, err
	}
	var listings []generationListing
	for _, g := range all {
		l := describe(g)
		if files {
			for _, o := range g.Objects() {
				l.Files = append(l.Files, olderFile{Key: o.Key, Size: o.Size, Timestamp: known(o.Time)})
			}
		}
		listings = append(listings, l)
	}
	slices.SortStableFunc(listings, func(a, b generationListing) int { return deref(a.First).Compare(deref(b.First)) })
	return listings, nil
}

// deref is zero for nil.
func deref(t *time.Time) (v time.Time) {
	if t != nil {
		v = *t
	}
	return v
}

func describe(g generations.Generation) generationListing {
	first, last := g.Bounds()
	return generationListing{
		Name: g.Name, Snapshots: len(g.Snapshots), Segments: len(g.Segments), Bytes: g.Bytes(),
		Indexes: append([]generations.Stretch{}, g.Stretches()...), First: known(first), Last: known(last),
	}
}

// printOlder prints the generations of all databases; false: there are none.
func printOlder(e *env, all []*listing) (bool, error) {
	var rows [][]string
	for _, l := range all {
		for _, g := range l.Generations {
			rows = append(rows, []string{l.DB, g.Name, fmt.Sprint(g.Snapshots), fmt.Sprint(g.Segments), sized(g.Bytes), clock(g.First), clock(g.Last)})
		}
	}
	if len(rows) == 0 {
		return false, nil
	}
	if err := daemon.PrintTable(e.stdout, []string{"DATABASE", "GENERATION", "SNAPSHOTS", "SEGMENTS", "SIZE", "FIRST", "LAST"}, rows); err != nil {
		return true, err
	}
	for _, l := range all {
		for _, g := range l.Generations {
			fmt.Fprintf(e.stdout, "%s: generation %s: %s\n", l.DB, g.Name, g.reach())
		}
	}
	return true, nil
}

// reach says which indexes can be restored.
func (g generationListing) reach() string {
	if len(g.Indexes) == 0 {
		return "nothing can be restored"
	}
	var all []string
	for _, s := range g.Indexes {
		all = append(all, fmt.Sprintf("%s to %s", s.First, s.Last))
	}
	return "restorable from index " + strings.Join(all, ", ")
}

// verifyOlder checks the generations, and adds what is wrong to the problems.
func (v *verifier) verifyOlder(ctx context.Context, parallelism int) error {
	report, err := generations.Check(ctx, generations.CheckConfig{Store: v.a.Store(), DB: v.db, Whole: v.share, Parallelism: parallelism})
	if err != nil {
		return err
	}
	for _, p := range report.Problems {
		v.problems = append(v.problems, problem{Key: p.Key, Reason: p.Reason, chain: p.Gap})
	}
	for _, g := range report.Generations {
		v.older = append(v.older, describe(g))
		v.olderFiles += len(g.Objects())
	}
	v.olderRead += report.Read
	return nil
}
