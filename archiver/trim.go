package archiver

import (
	"context"
	"log/slog"
	"time"

	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/wire"
)

// trimmer removes from the stream what all archives have had for a while.
type trimmer struct {
	str      *stream.Stream
	progress *progress
	wanted   []Destination
	after    time.Duration
	log      *slog.Logger
	metrics  *Metrics

	floors map[wire.DB][]floorAt // oldest first
}

// floorAt is what all archives had at a time.
type floorAt struct {
	seq uint64
	at  time.Time
}

// every is how often a trimmer looks.
func (t *trimmer) every() time.Duration {
	return min(max(t.after/10, 100*time.Millisecond), time.Minute)
}

// step notes where the floors are now, and trims behind those of a while ago.
func (t *trimmer) step(ctx context.Context, now time.Time) {
	for db := range t.progress.databases() {
		floor := t.progress.floor(db, t.wanted)
		if floor == 0 {
			delete(t.floors, db)
			continue
		}
		history := t.floors[db]
		if n := len(history); n == 0 || floor > history[n-1].seq {
			history = append(history, floorAt{floor, now})
		} else if floor < history[n-1].seq { // an archive was set back
			history = []floorAt{{floor, now}}
		}
		t.floors[db] = t.trim(ctx, db, history, now)
	}
}

// trim removes what lies before the newest floor that is old enough, and returns
// the floors that are not dealt with.
func (t *trimmer) trim(ctx context.Context, db wire.DB, history []floorAt, now time.Time) []floorAt {
	old := -1
	for i, f := range history {
		if now.Sub(f.at) >= t.after {
			old = i
		}
	}
	if old < 0 || len(history) == 1 && old == 0 && history[0].at.IsZero() {
		return history
	}
	removed, err := t.str.Trim(ctx, db, history[old].seq)
	if err != nil {
		t.log.Warn("stream not trimmed, trying again", "db", string(db), "err", err)
		return history
	}
	if removed > 0 {
		t.log.Info("stream trimmed", "db", string(db), "before", history[old].seq, "messages", removed)
		t.metrics.trimmed(db, removed)
	}
	// The last floor stays, marked as dealt with, so that it is not asked again.
	rest := history[old+1:]
	if len(rest) == 0 {
		return []floorAt{{seq: history[old].seq}}
	}
	return rest
}
