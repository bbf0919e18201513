package main

import (
	"context"
	"fmt"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/daemon"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/restore"
	"github.com/ltxstream/ltxstream/restore/generations"
)

type lsCmd struct {
	URL   string `arg:"" name:"URL" help:"The archive."`
	Name  string `arg:"" optional:"" name:"NAME" help:"One database, \".\" where URL is its folder itself; without it all of them."`
	Files bool   `name:"files" env:"-" noconfig:"" help:"List every file."`
	JSON  bool   `name:"json" env:"-" noconfig:"" help:"Print JSON."`
}

// listing is what an archive has of one database.
type listing struct {
	DB     string         `json:"db"`
	Points []points       `json:"points"` // where every recorded point can be reached
	Levels []levelListing `json:"levels"`
	Files  []fileListing  `json:"files,omitempty"`
	// Generations are what Litestream 0.3 left there.
	Generations []generationListing `json:"generations,omitempty"`
	catalog     *restore.Catalog    // for the table
}

type points struct {
	First ltx.TXID `json:"first"`
	Last  ltx.TXID `json:"last"`
}

type levelListing struct {
	Level levels.Level `json:"level"`
	Files int          `json:"files"`
	Bytes int64        `json:"bytes"`
	Min   ltx.TXID     `json:"min"`
	Max   ltx.TXID     `json:"max"`
	First *time.Time   `json:"first_timestamp,omitempty"`
	Last  *time.Time   `json:"last_timestamp,omitempty"`
}

type fileListing struct {
	Level     levels.Level `json:"level"`
	Min       ltx.TXID     `json:"min"`
	Max       ltx.TXID     `json:"max"`
	Size      int64        `json:"size"`
	Timestamp *time.Time   `json:"timestamp,omitempty"` // where the listing tells it
	Key       string       `json:"key"`
}

// Run lists.
func (c *lsCmd) Run(ctx context.Context, e *env) error {
	if c.Name != "" {
		if err := checkName(c.Name); err != nil {
			return err
		}
	}
	a, closeAll, err := e.reader(ctx, c.URL)
	if err != nil {
		return err
	}
	defer closeAll()
	all := []*listing{}
	if c.Name != "" {
		l, err := list(ctx, a, c.Name, c.Files)
		if err != nil {
			return err
		}
		all = append(all, l)
	} else {
		for name, err := range a.Databases(ctx, generations.IsKey) {
			if err != nil {
				return err
			}
			l, err := list(ctx, a, name, c.Files)
			if err != nil {
				return err
			}
			all = append(all, l)
		}
	}
	if c.Name != "" && len(all[0].Levels) == 0 && len(all[0].Generations) == 0 {
		return notFound(ctx, a, c.Name)
	}
	if c.JSON {
		return daemon.PrintJSON(e.stdout, all)
	}
	return c.print(e, all)
}

func list(ctx context.Context, a *levels.Archive, name string, files bool) (*listing, error) {
	catalog, err := restore.Read(ctx, restore.Of(a, name))
	if err != nil {
		return nil, err
	}
	l := &listing{DB: name, Points: []points{}, Levels: []levelListing{}, catalog: catalog}
	for _, s := range catalog.Stretches() {
		l.Points = append(l.Points, points(s))
	}
	for _, f := range catalog.Files {
		l.add(f.File)
		if files {
			l.Files = append(l.Files, fileListing{Level: f.Level, Min: f.Min, Max: f.Max, Size: f.Size, Timestamp: known(f.Timestamp), Key: a.Key(name, f.File)})
		}
	}
	l.Generations, err = listOlder(ctx, a, name, files)
	return l, err
}

func known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// add counts a file; those of a level come one behind the other.
func (l *listing) add(f levels.File) {
	if n := len(l.Levels); n == 0 || l.Levels[n-1].Level != f.Level {
		l.Levels = append(l.Levels, levelListing{Level: f.Level, Min: f.Min, First: known(f.Timestamp)})
	}
	level := &l.Levels[len(l.Levels)-1]
	level.Files++
	level.Bytes += f.Size
	level.Max = max(level.Max, f.Max)
	level.Last = known(f.Timestamp)
}

func (c *lsCmd) print(e *env, all []*listing) error {
	older, err := printOlder(e, all)
	if err != nil {
		return err
	}
	if err := c.printLevels(e, all, older); err != nil || !c.Files {
		return err
	}
	return printFiles(e, all)
}

// printLevels prints the levels of all databases; a table of none only where nothing
// else was printed.
func (c *lsCmd) printLevels(e *env, all []*listing, older bool) error {
	var rows [][]string
	for _, l := range all {
		for _, v := range l.Levels {
			rows = append(rows, []string{l.DB, fmt.Sprint(v.Level), fmt.Sprint(v.Files), sized(v.Bytes), v.Min.String(), v.Max.String(), clock(v.First), clock(v.Last)})
		}
	}
	if older && len(rows) == 0 {
		return nil
	}
	if err := daemon.PrintTable(e.stdout, []string{"DATABASE", "LEVEL", "FILES", "SIZE", "FIRST TXID", "LAST TXID", "FIRST", "LAST"}, rows); err != nil {
		return err
	}
	for _, l := range all {
		for _, p := range l.Points {
			fmt.Fprintf(e.stdout, "%s: restorable from TXID %s to %s\n", l.DB, p.First, p.Last)
		}
	}
	return nil
}

func printFiles(e *env, all []*listing) error {
	var rows, older [][]string
	for _, l := range all {
		for _, f := range l.Files {
			rows = append(rows, []string{l.DB, fmt.Sprint(f.Level), f.Min.String(), f.Max.String(), sized(f.Size), clock(f.Timestamp)})
		}
		for _, g := range l.Generations {
			for _, f := range g.Files {
				older = append(older, []string{l.DB, f.Key, sized(f.Size), clock(f.Timestamp)})
			}
		}
	}
	if len(older) > 0 {
		if err := daemon.PrintTable(e.stdout, []string{"DATABASE", "KEY", "SIZE", "WRITTEN"}, older); err != nil || len(rows) == 0 {
			return err
		}
	}
	return daemon.PrintTable(e.stdout, []string{"DATABASE", "LEVEL", "MIN", "MAX", "SIZE", "TIMESTAMP"}, rows)
}

func clock(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.Format(ltx.RFC3339Milli)
}
