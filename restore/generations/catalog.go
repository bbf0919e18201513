package generations

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ltxstream/ltxstream/objstore"
)

// Generation is what an archive has of one generation.
type Generation struct {
	Name      string     // 16 hex digits
	Snapshots []Snapshot // by index
	Segments  []Segment  // by index, then offset
}

// Snapshot is a copy of the database file, made while the WAL of its index was
// written: all of that WAL applies to it.
type Snapshot struct {
	Index Index
	Object
}

// Segment is a piece of a WAL.
type Segment struct {
	Index  Index
	Offset int64 // in the WAL, of its first byte
	Object
}

// Object is where one of both lies.
type Object struct {
	Key  string
	Size int64 // bytes, compressed
	// Time is when the storage says that the object was written, UTC, as exact as
	// its clock; zero where it does not tell.
	Time time.Time
}

// Read lists the generations of a database, in the order of their names: one
// request for each page. What is no snapshot and no segment is passed over.
func Read(ctx context.Context, store objstore.Store, db string) ([]Generation, error) {
	found := map[string]*Generation{}
	generation := func(name string) *Generation {
		if found[name] == nil {
			found[name] = &Generation{Name: name}
		}
		return found[name]
	}
	for info, err := range store.List(ctx, folder(db), "") {
		if err != nil {
			return nil, fmt.Errorf("list generations of %s: %w", db, err)
		}
		object := Object{Key: info.Key, Size: info.Size, Time: info.Modified}
		rest := strings.TrimPrefix(info.Key, folder(db))
		if name, index, ok := parseSnapshot(rest); ok {
			g := generation(name)
			g.Snapshots = append(g.Snapshots, Snapshot{Index: index, Object: object})
		} else if name, index, offset, ok := parseSegment(rest); ok {
			g := generation(name)
			g.Segments = append(g.Segments, Segment{Index: index, Offset: offset, Object: object})
		}
	}
	var all []Generation
	for _, name := range slices.Sorted(maps.Keys(found)) {
		g := found[name]
		slices.SortFunc(g.Snapshots, func(a, b Snapshot) int { return cmp.Compare(a.Index, b.Index) })
		slices.SortFunc(g.Segments, func(a, b Segment) int {
			return cmp.Or(cmp.Compare(a.Index, b.Index), cmp.Compare(a.Offset, b.Offset))
		})
		all = append(all, *g)
	}
	return all, nil
}

// Objects are the snapshots and then the segments.
func (g *Generation) Objects() []Object {
	all := make([]Object, 0, len(g.Snapshots)+len(g.Segments))
	for _, s := range g.Snapshots {
		all = append(all, s.Object)
	}
	for _, s := range g.Segments {
		all = append(all, s.Object)
	}
	return all
}

// Bounds are the times of the first and the last object written; zero where the
// storage tells none.
func (g *Generation) Bounds() (first, last time.Time) {
	for _, o := range g.Objects() {
		switch {
		case o.Time.IsZero():
			continue
		case first.IsZero() || o.Time.Before(first):
			first = o.Time
		}
		if o.Time.After(last) {
			last = o.Time
		}
	}
	return first, last
}

// Bytes is the size of all its objects.
func (g *Generation) Bytes() (n int64) {
	for _, o := range g.Objects() {
		n += o.Size
	}
	return n
}

// walOf returns the segments of one index.
func (g *Generation) walOf(index Index) []Segment {
	at := func(i Index) int {
		n, _ := slices.BinarySearchFunc(g.Segments, i, bySegment)
		return n
	}
	return g.Segments[at(index):at(index+1)]
}

// reachable are the segments from the first snapshot's index on. Those before are
// what retention has not deleted yet.
func (g *Generation) reachable() []Segment {
	if len(g.Snapshots) == 0 {
		return nil
	}
	n, _ := slices.BinarySearchFunc(g.Segments, g.Snapshots[0].Index, bySegment)
	return g.Segments[n:]
}

func bySegment(s Segment, i Index) int { return cmp.Compare(s.Index, i) }

// begins reports whether the WAL of an index has its first segment.
func (g *Generation) begins(index Index) bool {
	wal := g.walOf(index)
	return len(wal) > 0 && wal[0].Offset == 0
}

// Stretch is a run of indexes, each of which can be restored.
type Stretch struct {
	First Index `json:"first"`
	Last  Index `json:"last"`
}

// Stretches returns the indexes that can be reached as far as names tell, in
// order. Between two of them something is missing.
func (g *Generation) Stretches() (all []Stretch) {
	for _, s := range g.Snapshots {
		if n := len(all); n > 0 && s.Index <= all[n-1].Last {
			continue
		}
		last := s.Index
		for i := s.Index; g.begins(i); i++ {
			last = i
		}
		if n := len(all); n > 0 && s.Index == all[n-1].Last+1 {
			all[n-1].Last = last
		} else {
			all = append(all, Stretch{First: s.Index, Last: last})
		}
	}
	return all
}
