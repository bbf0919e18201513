package compactor

import (
	"context"
	"iter"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/objstore/objstoretest"
)

// timeless is a store that tells no timestamps: headers are read instead.
type timeless struct{ objstore.Store }

func (s timeless) Stat(ctx context.Context, key string) (objstore.Info, error) {
	info, err := s.Store.Stat(ctx, key)
	info.Timestamp = time.Time{}
	return info, err
}

func (s timeless) List(ctx context.Context, prefix, after string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		for info, err := range s.Store.List(ctx, prefix, after) {
			info.Timestamp = time.Time{}
			if !yield(info, err) {
				return
			}
		}
	}
}

// TestUnreadableAtStart: a file that cannot be read when a Compactor begins is
// passed over. Only one that the newest point needs is an alarm.
func TestUnreadableAtStart(t *testing.T) {
	t.Parallel()
	ar := newArchive(t, 26)
	rot := &objstoretest.Rot{Store: timeless{ar.store}}
	ar.a = levels.New(rot, levels.Decimal)
	ar.cfg.Archive, ar.cfg.Schedule = ar.a, Schedule{Snapshot: time.Hour}
	ar.reopen(t)
	grow := func() {
		ar.h.Grow(t, 2)
		ar.flush(t)
		ar.h.Skip(2 * time.Hour)
		for did := true; did; {
			var err error
			if did, err = ar.c.Step(t.Context(), ar.h.Last().Time); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 3 {
		grow()
	}
	ar.h.Grow(t, 2)
	ar.flush(t)
	snapshots := ar.c.Inventory().Level(levels.Snapshot)
	first := ar.c.Inventory().Level(levels.First)
	if len(snapshots) < 2 || len(first) != 4 {
		t.Fatalf("%d snapshots, %d files of level 1", len(snapshots), len(first))
	}
	spoilt := func(f levels.File, end levels.File, lost bool) {
		t.Helper()
		rot.Spoil(ar.a.Key("app", f), 10)
		ar.reopen(t)
		head, pos, err := ar.c.Head(t.Context())
		if err != nil || !head.Is(end) || pos.TXID != end.Max || head.Timestamp.IsZero() {
			t.Errorf("%s unreadable: the archive ends with %s at %s, want %s (%v)", f, head, pos, end, err)
		}
		if got := ar.c.Lost() != nil; got != lost {
			t.Errorf("%s unreadable: lost: %v", f, ar.c.Lost())
		}
	}
	spoilt(snapshots[0], first[3], false)
	spoilt(first[3], first[2], false)
	ar.check(t, first[2].Max)
	for _, f := range snapshots[1:] {
		rot.Spoil(ar.a.Key("app", f), 10)
	}
	ar.cfg.Schedule.Windows = []time.Duration{time.Hour} // for which it is to be merged
	spoilt(first[1], first[2], true)
}
