package compactor

import (
	"errors"
	"fmt"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/objstore/levels"
)

// Schedule says when files move up.
type Schedule struct {
	// Windows are the lengths of the levels above the first, level 2 first: a
	// file of such a level holds what happened in one window of that length,
	// counted from the Unix epoch. At most seven.
	Windows []time.Duration
	// Snapshot is how long a snapshot is the newest one while there is
	// something behind it.
	Snapshot time.Duration
}

// DefaultSchedule is 5 minutes, an hour, and a snapshot every day.
var DefaultSchedule = Schedule{Windows: []time.Duration{5 * time.Minute, time.Hour}, Snapshot: 24 * time.Hour}

// maxWindows is how many levels there are between the first and the snapshots.
const maxWindows = int(levels.Snapshot - levels.First - 1)

// Validate reports all that is wrong with a schedule.
func (s Schedule) Validate() error {
	var errs []error
	if n := len(s.Windows); n > maxWindows {
		errs = append(errs, fmt.Errorf("%d windows of levels above the first: want at most %d", n, maxWindows))
	}
	for _, w := range s.Windows {
		if w <= 0 {
			errs = append(errs, fmt.Errorf("windows: %v: want a positive duration", w))
		}
	}
	if s.Snapshot < 0 {
		errs = append(errs, fmt.Errorf("snapshot interval %v is negative", s.Snapshot))
	}
	return errors.Join(errs...)
}

// Top is the highest level below the snapshots.
func (s Schedule) Top() levels.Level { return levels.First + levels.Level(len(s.Windows)) }

// window returns the length of a level's windows.
func (s Schedule) window(level levels.Level) time.Duration { return s.Windows[level-levels.First-1] }

// Pick returns the files of the level below that make the next file of a level,
// nil: it is not time yet. They follow one another without a gap, fall into one
// window, and that window is over, by the clock or because a file of a later one
// is there. What is picked depends on the files alone, so that two writers of one
// archive make the same files; where they made some that overlap, the fewest that
// lead on are picked.
func Pick(inv *Inventory, level levels.Level, s Schedule, now time.Time) []levels.File {
	covered := inv.Max(level)
	var below []levels.File
	for _, f := range inv.Level(level - 1) {
		if f.Max > covered {
			below = append(below, f)
		}
	}
	if len(below) == 0 {
		return nil
	}
	pos := max(covered, below[0].Min-1)
	if below[0].IsBase() && covered == 0 {
		pos = below[0].Max // Cover is for what follows a base
	}
	chain := levels.Cover(below, func(f levels.File) levels.File { return f }, pos, inv.Max(level-1))
	if below[0].IsBase() && covered == 0 {
		chain = append(below[:1:1], chain...)
	}
	length := s.window(level)
	window := chain[0].Timestamp.Truncate(length)
	end := 1
	for end < len(chain) && chain[end].Timestamp.Truncate(length).Equal(window) {
		end++
	}
	if end < len(chain) || below[len(below)-1].Timestamp.Truncate(length).After(window) || !now.Before(window.Add(length)) {
		return chain[:end:end]
	}
	return nil
}

// PickSnapshot returns the files that make the next snapshot, the base first,
// nil: it is not time yet. The first snapshot is due as soon as there is a base.
func PickSnapshot(inv *Inventory, s Schedule, now time.Time) []levels.File {
	newest := inv.newestSnapshot()
	if newest.Max > 0 && now.Sub(inv.since(newest)) < s.Snapshot {
		return nil
	}
	chain := inv.chain(inv.Max(levels.First))
	if chain == nil || chain[len(chain)-1].Max <= newest.Max {
		return nil
	}
	return chain
}

// chain is the newest base and what leads on from it towards to, as far as that
// goes; nil: there is no base.
func (inv *Inventory) chain(to ltx.TXID) (chain []levels.File) {
	files := inv.all()
	for _, f := range files {
		if f.IsBase() && (chain == nil || f.Max > chain[0].Max || f.Max == chain[0].Max && f.Level == levels.Snapshot) {
			chain = []levels.File{f}
		}
	}
	if chain == nil {
		return nil
	}
	return append(chain, levels.Cover(files, func(f levels.File) levels.File { return f }, chain[0].Max, to)...)
}

// reaches reports whether the newest base and what follows it lead to a TXID.
func (inv *Inventory) reaches(to ltx.TXID) bool {
	chain := inv.chain(to)
	return chain != nil && chain[len(chain)-1].Max >= to
}

// since is from when on a snapshot has been the newest one: its own time, or that
// of something behind it when the clock went back in between.
func (inv *Inventory) since(newest levels.File) time.Time {
	t := newest.Timestamp
	for _, files := range inv.files {
		for _, f := range files {
			if f.Max > newest.Max && !f.Timestamp.IsZero() && f.Timestamp.Before(t) {
				t = f.Timestamp
			}
		}
	}
	return t
}

// newestSnapshot is the one that ends last; zero: there is none.
func (inv *Inventory) newestSnapshot() levels.File { return levels.Newest(inv.Level(levels.Snapshot)) }
