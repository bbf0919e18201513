package generations

import (
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/superfly/ltx"
)

// Target is the point to restore. The zero Target is the newest one.
type Target struct {
	Generation string // "": chosen by the rest
	// Index is the last WAL to apply, to its end; nil: all of them. Without
	// Generation it is one of the generation that was written last.
	Index *Index
	// Time: the last point that had been stored at this time or before; zero: no
	// such limit.
	Time time.Time
}

// Plan is what leads to a target: one snapshot, and the segments behind it in the
// order of their application.
type Plan struct {
	Generation string
	Snapshot   Snapshot
	Segments   []Segment

	next *Segment // behind the last one in the generation; nil: none
}

// Objects are what is read, in this order.
func (p *Plan) Objects() []Object {
	all := []Object{p.Snapshot.Object}
	for _, s := range p.Segments {
		all = append(all, s.Object)
	}
	return all
}

// Bytes is the size of all objects.
func (p *Plan) Bytes() (n int64) {
	for _, o := range p.Objects() {
		n += o.Size
	}
	return n
}

// Requests is how many ranges are fetched.
func (p *Plan) Requests() (n int64) {
	for _, o := range p.Objects() {
		n += o.pieces()
	}
	return n
}

// Time is when the last of the objects was written.
func (p *Plan) Time() time.Time {
	if n := len(p.Segments); n > 0 {
		return p.Segments[n-1].Time
	}
	return p.Snapshot.Time
}

// TargetError says that nothing leads to a target.
type TargetError struct {
	Generation string // "": of none in particular
	Reason     string
}

func (e *TargetError) Error() string {
	if e.Generation == "" {
		return e.Reason
	}
	return "generation " + e.Generation + ": " + e.Reason
}

// GapError says what is missing between a snapshot and a target.
type GapError struct {
	Generation string
	Index      Index // of the WAL
	Offset     int64 // in it, where nothing follows on
	Found      Segment
}

func (e *GapError) Error() string {
	what := fmt.Sprintf("the segment at offset %08x of WAL index %s", e.Offset, e.Index)
	if e.Offset == 0 && e.Found.Index > e.Index {
		what = "WAL index " + e.Index.String()
	}
	return fmt.Sprintf("generation %s: %s is missing: what comes next is %s", e.Generation, what, e.Found.Key)
}

// Find returns the objects that lead to a target:
//
//   - of the generation named; else, for a time, of the one whose snapshot is the
//     newest at or before it; else of the one that was written last;
//   - the newest snapshot there at or before the target;
//   - every segment from the snapshot's index on, up to the end of the target's
//     index or up to the first one that was written after the target's time.
//
// Errors: [*TargetError], [*GapError].
func Find(all []Generation, target Target) (*Plan, error) {
	if target.Index != nil && !target.Time.IsZero() {
		return nil, &TargetError{Reason: "a target is an index or a time, not both"}
	}
	g, err := generation(all, target)
	if err != nil {
		return nil, err
	}
	snapshot, err := g.snapshot(target)
	if err != nil {
		return nil, err
	}
	p := &Plan{Generation: g.Name, Snapshot: snapshot}
	for i, s := range g.Segments {
		if s.Index < snapshot.Index {
			continue
		}
		if target.Index != nil && s.Index > *target.Index || !target.Time.IsZero() && !written(s.Object, target.Time) {
			p.next = &g.Segments[i]
			break
		}
		p.Segments = append(p.Segments, s)
	}
	if missing := gaps(g.Name, snapshot.Index, p.Segments); len(missing) > 0 {
		return nil, missing[0]
	}
	if i := target.Index; i != nil && *i > p.Last() {
		return nil, &TargetError{g.Name, fmt.Sprintf("there is no WAL index %s, the last one is %s", *i, p.Last())}
	}
	return p, nil
}

// generation chooses the generation of a target.
func generation(all []Generation, target Target) (*Generation, error) {
	switch {
	case len(all) == 0:
		return nil, &TargetError{Reason: "there are no generations"}
	case target.Generation != "":
		i := slices.IndexFunc(all, func(g Generation) bool { return g.Name == target.Generation })
		if i < 0 {
			return nil, &TargetError{Reason: fmt.Sprintf("there is no generation %s, but %s", target.Generation, names(all))}
		}
		return &all[i], nil
	case target.Time.IsZero():
		return Newest(all), nil
	}
	best := latest(all, func(g *Generation) time.Time { return g.before(target.Time).Time })
	if best == nil {
		return nil, &TargetError{Reason: "there is no snapshot from before " + clock(target.Time) + first(all)}
	}
	return best, nil
}

// Newest returns the generation that was written last, nil when there is none.
func Newest(all []Generation) *Generation {
	newest := latest(all, func(g *Generation) time.Time { _, last := g.Bounds(); return last })
	if newest == nil && len(all) > 0 {
		newest = &all[len(all)-1] // the storage tells no times
	}
	return newest
}

// latest returns the generation with the latest of some time, and of several (storages
// keep whole seconds) the one that began last; nil: none has one.
func latest(all []Generation, of func(*Generation) time.Time) (best *Generation) {
	var newest, begun time.Time
	for i := range all {
		at := of(&all[i])
		first, _ := all[i].Bounds()
		if at.After(newest) || best != nil && at.Equal(newest) && first.After(begun) {
			best, newest, begun = &all[i], at, first
		}
	}
	return best
}

// snapshot is the newest one that leads to a target.
func (g *Generation) snapshot(target Target) (Snapshot, error) {
	if len(g.Snapshots) == 0 {
		return Snapshot{}, &TargetError{g.Name, "it has no snapshot"}
	}
	for _, s := range slices.Backward(g.Snapshots) {
		if target.Index != nil && s.Index > *target.Index || !target.Time.IsZero() && !written(s.Object, target.Time) {
			continue
		}
		return s, nil
	}
	if target.Index != nil {
		return Snapshot{}, &TargetError{g.Name, fmt.Sprintf("there is no snapshot at or before WAL index %s, the first one is at %s", *target.Index, g.Snapshots[0].Index)}
	}
	return Snapshot{}, &TargetError{g.Name, "there is no snapshot from before " + clock(target.Time) + first([]Generation{*g})}
}

// before returns the newest snapshot by its time at or before t; one without a time:
// there is none.
func (g *Generation) before(t time.Time) (newest Snapshot) {
	for _, s := range g.Snapshots {
		if written(s.Object, t) && !s.Time.Before(newest.Time) {
			newest = s
		}
	}
	return newest
}

// NewestSnapshot returns the time of the newest snapshot of any generation at or
// before t; zero: there is none.
func NewestSnapshot(all []Generation, t time.Time) (at time.Time) {
	for _, g := range all {
		if s := g.before(t); s.Time.After(at) {
			at = s.Time
		}
	}
	return at
}

// written reports whether an object was written at t or before. What does not tell
// was not, as far as anybody knows.
func written(o Object, t time.Time) bool { return !o.Time.IsZero() && !o.Time.After(t) }

// Last is the index up to which the plan goes.
func (p *Plan) Last() Index {
	if n := len(p.Segments); n > 0 {
		return p.Segments[n-1].Index
	}
	return p.Snapshot.Index
}

// gaps are the indexes that are missing among segments from an index on, and those
// whose first segment is.
func gaps(generation string, from Index, segments []Segment) (all []*GapError) {
	next := from // to begin
	for _, s := range segments {
		switch {
		case s.Index < next: // goes on, or lies before
			continue
		case s.Index > next || s.Offset != 0:
			all = append(all, &GapError{Generation: generation, Index: next, Found: s})
		}
		next = s.Index + 1
	}
	return all
}

// wals yields the segments of one index after the other, each with the segment that
// comes behind them; that of the last ones is behind.
func wals(segments []Segment, behind *Segment) iter.Seq2[[]Segment, *Segment] {
	return func(yield func([]Segment, *Segment) bool) {
		for rest := segments; len(rest) > 0; {
			n := 1
			for n < len(rest) && rest[n].Index == rest[0].Index {
				n++
			}
			next := behind
			if n < len(rest) {
				next = &rest[n]
			}
			if !yield(rest[:n], next) {
				return
			}
			rest = rest[n:]
		}
	}
}

func names(all []Generation) string {
	var list []string
	for _, g := range all {
		list = append(list, g.Name)
	}
	return strings.Join(list, ", ")
}

// first tells of the oldest snapshot, for an error.
func first(all []Generation) string {
	var oldest time.Time
	for _, g := range all {
		for _, s := range g.Snapshots {
			if !s.Time.IsZero() && (oldest.IsZero() || s.Time.Before(oldest)) {
				oldest = s.Time
			}
		}
	}
	if oldest.IsZero() {
		return "; the storage tells the time of none"
	}
	return "; the first one is of " + clock(oldest)
}

func clock(t time.Time) string { return t.UTC().Format(ltx.RFC3339Milli) }
