package compactor

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ltxstream/ltxstream/objstore/levels"
)

// Policy says what is kept. The zero Policy keeps everything.
type Policy struct {
	// Window is for how long every point that level 1 has stays restorable; 0:
	// for ever.
	Window time.Duration
	// Older snapshots are kept as restic does: the newest Last ones, and the
	// newest of each of the last so many hours, days, ISO weeks, months and
	// years that have one, in UTC.
	Last, Hourly, Daily, Weekly, Monthly, Yearly int
	// Grace is how much longer files are left alone, so that a restore that was
	// planned with them can finish.
	Grace time.Duration
}

// Validate refuses negative values: what they would mean is anybody's guess, and
// things are deleted by it.
func (p Policy) Validate() error {
	for _, n := range []int64{int64(p.Window), int64(p.Grace), int64(p.Last), int64(p.Hourly), int64(p.Daily), int64(p.Weekly), int64(p.Monthly), int64(p.Yearly)} {
		if n < 0 {
			return errors.New("a retention policy has no negative durations and numbers")
		}
	}
	return nil
}

// DefaultPolicy keeps every point of the last day, and snapshots of seven days,
// four weeks and twelve months.
var DefaultPolicy = Policy{Window: 24 * time.Hour, Daily: 7, Weekly: 4, Monthly: 12, Grace: time.Hour}

// Verdict is what a [Policy] says of an inventory.
type Verdict struct {
	Delete []levels.File
	// Anchor is the snapshot on which the deletions rest: the oldest point of
	// the window begins with it. It must be whole before anything is deleted.
	Anchor levels.File
	// Reasons says for each snapshot that stays why, by its Max.
	Reasons map[levels.File][]string
}

// Keep judges an inventory. A snapshot that is the newest one at or before the
// begin of the window is always kept, and so is everything behind it; without
// such a snapshot nothing is deleted. The window ends with the newest transaction
// where that is before now: a clock that jumps ahead deletes nothing, and of a
// database on which nothing happens the last window stays.
func Keep(inv *Inventory, p Policy, now time.Time) Verdict {
	v := Verdict{Reasons: map[levels.File][]string{}}
	snapshots := inv.Level(levels.Snapshot)
	if p.Window <= 0 || len(snapshots) == 0 {
		return v
	}
	if newest := inv.End().Timestamp; newest.Before(now) {
		now = newest
	}
	now = now.Add(-p.Grace)
	begin := now.Add(-p.Window)
	anchor := -1
	for i, s := range snapshots {
		if s.Timestamp.IsZero() {
			return v // not known: keep all
		}
		if !s.Timestamp.After(begin) {
			anchor = i
		}
	}
	if anchor < 0 {
		return v
	}
	v.Anchor = snapshots[anchor]
	for i := anchor; i < len(snapshots); i++ {
		v.keep(snapshots[i], "window")
	}
	for _, rule := range p.rules() {
		rule.apply(snapshots, v.keep)
	}
	for _, f := range inv.all() {
		old := f.Level != levels.Snapshot && f.Max <= v.Anchor.Max
		if old || f.Level == levels.Snapshot && v.Reasons[f] == nil {
			v.Delete = append(v.Delete, f)
		}
	}
	return v
}

func (v *Verdict) keep(f levels.File, why string) { v.Reasons[f] = append(v.Reasons[f], why) }

// rule keeps the newest snapshot of each of the last n periods.
type rule struct {
	name   string
	n      int
	period func(time.Time) string // nil: each snapshot is one
}

func (p Policy) rules() []rule {
	return []rule{
		{"last", p.Last, nil},
		{"hourly", p.Hourly, func(t time.Time) string { return t.Format("2006-01-02 15") }},
		{"daily", p.Daily, func(t time.Time) string { return t.Format("2006-01-02") }},
		{"weekly", p.Weekly, func(t time.Time) string { y, w := t.ISOWeek(); return fmt.Sprintf("%d-%d", y, w) }},
		{"monthly", p.Monthly, func(t time.Time) string { return t.Format("2006-01") }},
		{"yearly", p.Yearly, func(t time.Time) string { return t.Format("2006") }},
	}
}

func (r rule) apply(snapshots []levels.File, keep func(levels.File, string)) {
	last, n := "", 0
	for i, s := range slices.Backward(snapshots) {
		period := fmt.Sprint(i)
		if r.period != nil {
			period = r.period(s.Timestamp.UTC())
		}
		if period == last {
			continue
		}
		if n++; n > r.n {
			return
		}
		last = period
		keep(s, r.name)
	}
}
