package restore

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/objstore/levels"
)

// File is one file that a restore could use.
type File struct {
	levels.File
	Source int // index of the Source that has it
}

// PlanError says that no files lead to the point asked for.
type PlanError struct {
	Want ltx.TXID // 0: there is nothing at all
	// Reached is how far a chain goes from a whole database to a point before
	// Want, 0: no whole database was found there. Its file's time is At, if the
	// listing told it.
	Reached ltx.TXID
	At      time.Time
	// Next is the nearest point behind Want that can be reached, 0: none.
	Next ltx.TXID
	// Inside: a file holds Want in the middle of its range, so that Want was a
	// point once and was merged with its neighbours since.
	Inside bool
	Behind bool // no file reaches as far as Want
}

func (e *PlanError) Error() string {
	switch {
	case e.Want == 0:
		return "there are no files"
	case e.Reached == 0 && e.Next == 0:
		return fmt.Sprintf("TXID %s cannot be reached: there is no file of a whole database at or before it", e.Want)
	}
	why := "a file is missing behind the point before it"
	switch {
	case e.Behind:
		why = "the history ends before it"
	case e.Inside:
		why = "it was merged with the transactions around it"
	}
	text := fmt.Sprintf("TXID %s cannot be reached: %s", e.Want, why)
	if e.Reached != 0 {
		text += fmt.Sprintf("; the last point before it is TXID %s", e.Reached)
	} else {
		text += "; there is no point before it"
	}
	if e.Next != 0 {
		text += fmt.Sprintf(", the first behind it TXID %s", e.Next)
	}
	return text
}

// Plan returns the files, in the order of their application, that bring an empty
// file to exactly the state after TXID to: a whole database, the newest one that
// will do, and then the fewest files that follow one another without a gap. A
// file may begin before the end of the one before it. The error is a
// [*PlanError].
func Plan(files []File, to ltx.TXID) ([]File, error) {
	if len(files) == 0 {
		return nil, &PlanError{}
	}
	sorted := slices.Clone(files)
	slices.SortFunc(sorted, func(a, b File) int {
		return cmp.Or(levels.CompareRange(a.File, b.File), cmp.Compare(b.Level, a.Level))
	})
	var best []File
	for _, base := range bases(sorted, to) {
		chain := follow(sorted, base, to)
		if last(chain) == to {
			return chain, nil
		}
		if best == nil || last(chain) > last(best) {
			best = chain
		}
	}
	fault := &PlanError{Want: to, Next: nextPoint(sorted, to), Behind: Newest(files) < to}
	if best != nil {
		fault.Reached, fault.At = last(best), best[len(best)-1].Timestamp
	}
	for _, f := range sorted {
		fault.Inside = fault.Inside || f.Min <= to && to < f.Max && f.Min > 1
	}
	return nil, fault
}

// Newest is the last TXID of any file.
func Newest(files []File) (newest ltx.TXID) {
	for _, f := range files {
		newest = max(newest, f.Max)
	}
	return newest
}

func last(chain []File) ltx.TXID { return chain[len(chain)-1].Max }

// bases are the files of a whole database up to a point, the newest first.
func bases(files []File, to ltx.TXID) (found []File) {
	for _, f := range files {
		if f.IsBase() && f.Max <= to {
			found = append(found, f)
		}
	}
	slices.SortStableFunc(found, func(a, b File) int {
		return cmp.Or(cmp.Compare(b.Max, a.Max), cmp.Compare(a.Size, b.Size))
	})
	return slices.CompactFunc(found, func(a, b File) bool { return a.Max == b.Max && a.Source == b.Source && a.Level == b.Level })
}

// follow goes from base as far towards to as files lead.
func follow(sorted []File, base File, to ltx.TXID) []File {
	return append([]File{base}, levels.Cover(sorted, func(f File) levels.File { return f.File }, base.Max, to)...)
}

// nextPoint is the first point behind a TXID that can be reached.
func nextPoint(sorted []File, after ltx.TXID) ltx.TXID {
	points := make([]ltx.TXID, 0, len(sorted))
	for _, f := range sorted {
		if f.Max > after {
			points = append(points, f.Max)
		}
	}
	slices.Sort(points)
	for _, p := range slices.Compact(points) {
		for _, base := range bases(sorted, p) {
			if last(follow(sorted, base, p)) == p {
				return p
			}
		}
		if p > after+maxLook {
			break
		}
	}
	return 0
}

// maxLook bounds the search for a point that is only a hint.
const maxLook = 1 << 16
