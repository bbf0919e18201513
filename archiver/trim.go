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

	created time.Time             // of the stream that floors are of
	floors  map[wire.DB][]floorAt // oldest first
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
	state, err := t.str.State(ctx)
	if err != nil {
		if ctx.Err() == nil {
			t.log.Warn("stream not trimmed, trying again", "err", err)
		}
		return
	}
	if !state.Created.Equal(t.created) {
		t.created = state.Created
		clear(t.floors)
	}
	for db := range t.progress.databases() {
		floor := t.progress.floor(db, t.wanted, t.created)
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
	removed, err := t.remove(ctx, db, history[old].seq)
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

// remove trims before a sequence, and never the newest file, whatever the records
// say: what comes next continues it.
func (t *trimmer) remove(ctx context.Context, db wire.DB, before uint64) (removed uint64, err error) {
	head, err := t.str.Head(ctx, db)
	if err != nil || head.Data == nil {
		return 0, err
	}
	newest := head.Data
	if newest.Meta.Parts > 1 {
		if newest, err = t.str.Find(ctx, db, newest.Meta.Min); err != nil || newest == nil {
			return 0, err
		}
	}
	return t.str.Trim(ctx, db, min(before, newest.Seq, head.Data.Seq))
}
