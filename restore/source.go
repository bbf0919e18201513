package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/objstore/levels"
)

// Source has LTX files of one database. Its methods are safe for concurrent
// use.
type Source interface {
	// List returns all files, in any order.
	List(ctx context.Context) ([]levels.File, error)
	// Before returns how many of files, of one level in TXID order, are at or
	// before a time. Those at the boundary have their exact timestamps
	// afterwards.
	Before(ctx context.Context, files []levels.File, t time.Time) (int, error)
	// Open reads a part of a file; see [levels.Archive.Open].
	Open(ctx context.Context, f levels.File, offset, size int64) (io.ReadCloser, error)
	// Key names a file for people.
	Key(f levels.File) string
}

// Of is the Source that is one database of an archive.
func Of(a *levels.Archive, db string) Source { return archived{a: a, db: db} }

type archived struct {
	a  *levels.Archive
	db string
}

func (s archived) List(ctx context.Context) ([]levels.File, error) {
	var all []levels.File
	for level := levels.Stream; level <= levels.Snapshot; level++ {
		for f, err := range s.a.Files(ctx, s.db, level, 0) {
			if err != nil {
				return nil, err
			}
			all = append(all, f)
		}
	}
	return all, nil
}

func (s archived) Before(ctx context.Context, files []levels.File, t time.Time) (int, error) {
	return s.a.Before(ctx, s.db, files, t)
}

func (s archived) Open(ctx context.Context, f levels.File, offset, size int64) (io.ReadCloser, error) {
	return s.a.Open(ctx, s.db, f, offset, size)
}

func (s archived) Key(f levels.File) string { return s.a.Key(s.db, f) }

// Target is the point to restore: a TXID, the last point at or before a time,
// or, when both are zero, the newest one.
type Target struct {
	TXID ltx.TXID
	Time time.Time
}

// Catalog is what the sources had when they were asked.
type Catalog struct {
	Sources []Source
	Files   []File
}

// Newest is the file that ends last; zero where there is none.
func (c *Catalog) Newest() (last levels.File) {
	for _, f := range c.Files {
		if f.Max > last.Max {
			last = f.File
		}
	}
	return last
}

// Read lists all sources: one request or more for each level that there could
// be.
func Read(ctx context.Context, sources ...Source) (*Catalog, error) {
	c := &Catalog{}
	for _, s := range sources {
		if err := c.Add(ctx, s); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Add lists one more source.
func (c *Catalog) Add(ctx context.Context, s Source) error {
	files, err := s.List(ctx)
	if err != nil {
		return fmt.Errorf("list files: %w", err)
	}
	for _, f := range files {
		c.Files = append(c.Files, File{File: f, Source: len(c.Sources)})
	}
	c.Sources = append(c.Sources, s)
	return nil
}

// TimeError says that nothing is as old as a time.
type TimeError struct {
	Time  time.Time
	First ltx.TXID  // the oldest point, 0: there is none
	At    time.Time // of First; zero: not known
}

func (e *TimeError) Error() string {
	text := "there is nothing from before " + e.Time.UTC().Format(ltx.RFC3339Milli)
	if e.First == 0 {
		return text + ", and no file of a whole database to begin with"
	}
	text += fmt.Sprintf("; the first point is TXID %s", e.First)
	if !e.At.IsZero() {
		text += " of " + e.At.UTC().Format(ltx.RFC3339Milli)
	}
	return text
}

// BaseBefore returns the newest file of a whole database at or before a time, with
// its exact timestamp; false: there is none. It asks like Resolve.
func (c *Catalog) BaseBefore(ctx context.Context, t time.Time) (newest File, ok bool, err error) {
	all := &Catalog{Sources: c.Sources, Files: slices.DeleteFunc(slices.Clone(c.Files), func(f File) bool { return !f.IsBase() })}
	search := timeSearch{catalog: c, t: t}
	for _, group := range all.byLevel() {
		files, n, err := search.before(ctx, group)
		if err != nil {
			return File{}, false, err
		}
		if n > 0 && (!ok || files[n-1].Timestamp.After(newest.Timestamp)) {
			newest, ok = File{File: files[n-1], Source: group[0].Source}, true
		}
	}
	return newest, ok, nil
}

// Resolve returns the TXID of a target. For a time it asks the sources for O(log
// n) timestamps of each level.
func (c *Catalog) Resolve(ctx context.Context, target Target) (ltx.TXID, error) {
	switch {
	case len(c.Files) == 0:
		return 0, &PlanError{}
	case target.TXID != 0 && !target.Time.IsZero():
		return 0, errors.New("a target is a TXID or a time, not both")
	case target.TXID != 0:
		return target.TXID, nil
	case target.Time.IsZero():
		return Newest(c.Files), nil
	}
	var newest ltx.TXID
	oldest := map[ltx.TXID]time.Time{}
	search := timeSearch{catalog: c, t: target.Time}
	for _, group := range c.byLevel() {
		files, n, err := search.before(ctx, group)
		switch {
		case err != nil:
			return 0, err
		case n > 0:
			newest = max(newest, files[n-1].Max)
		case len(files) > 0:
			oldest[files[0].Max] = files[0].Timestamp
		}
	}
	if newest == 0 {
		first := nextPoint(sortedByMin(c.Files), 0)
		return 0, &TimeError{Time: target.Time, First: first, At: oldest[first]}
	}
	return newest, nil
}

// timeSearch looks in one level after the other for what is at or before t.
type timeSearch struct {
	catalog *Catalog
	t       time.Time
	damaged []File // passed over
}

// before returns the files of a level whose times can be read, and how many of
// them are at or before t. One that is damaged is passed over where another file
// ends with the same transaction: that one tells the time.
func (s *timeSearch) before(ctx context.Context, group []File) (files []levels.File, n int, err error) {
	source := s.catalog.Sources[group[0].Source]
	for {
		files = files[:0]
		for _, f := range group {
			files = append(files, f.File)
		}
		n, err = source.Before(ctx, files, s.t)
		damage, ok := errors.AsType[*levels.DamageError](err)
		if !ok {
			return files, n, err
		}
		i := slices.IndexFunc(group, func(f File) bool { return source.Key(f.File) == damage.Key })
		if i < 0 {
			return nil, 0, err
		}
		s.damaged = append(s.damaged, group[i])
		if !slices.ContainsFunc(s.catalog.Files, func(f File) bool { return f.Max == group[i].Max && !s.isDamaged(f) }) {
			return nil, 0, fmt.Errorf("whether TXID %s is at or before %s is not known (a TXID can be named instead): %w", group[i].Max, s.t.UTC().Format(ltx.RFC3339Milli), err)
		}
		group = slices.Delete(slices.Clone(group), i, i+1)
	}
}

func (s *timeSearch) isDamaged(f File) bool {
	return slices.ContainsFunc(s.damaged, func(d File) bool { return sameFile(f, d) })
}
