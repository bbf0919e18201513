package restore

import (
	"context"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/objstore/levels"
)

// timed is a source whose files have the timestamps of the listing.
type timed struct{ Source }

func (timed) Before(_ context.Context, files []levels.File, t time.Time) (n int, err error) {
	for n < len(files) && !files[n].Timestamp.After(t) {
		n++
	}
	return n, nil
}

// TestBaseBefore: whole databases of every level count, and nothing else.
func TestBaseBefore(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	file := func(level levels.Level, lo, hi ltx.TXID) File {
		return File{File: levels.File{Level: level, Min: lo, Max: hi, Timestamp: start.Add(time.Duration(hi) * time.Second)}}
	}
	c := &Catalog{Sources: []Source{timed{}}, Files: []File{
		file(levels.First, 1, 2), file(levels.First, 3, 4), file(levels.First, 1, 7), // a full file of a re-seed
		file(2, 3, 8), file(levels.Snapshot, 1, 5), file(levels.Snapshot, 1, 10),
	}}
	for at, want := range map[int]ltx.TXID{0: 0, 1: 0, 2: 2, 4: 2, 5: 5, 6: 5, 7: 7, 9: 7, 10: 10, 99: 10} {
		f, ok, err := c.BaseBefore(t.Context(), start.Add(time.Duration(at)*time.Second))
		if err != nil || ok != (want > 0) || f.Max != want {
			t.Errorf("at %d: %s, %t, %v, want %s", at, f.Max, ok, err, want)
		}
	}
}
