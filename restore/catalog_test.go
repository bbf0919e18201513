package restore

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/testenv/history"
)

// TestCatalog: what was listed a moment ago is not listed again, unless it is not
// true any more.
func TestCatalog(t *testing.T) {
	t.Parallel()
	w := newWorld(t, history.Config{Seed: 15}, 20)
	for txid := ltx.TXID(1); txid <= 20; txid++ {
		w.put(t, levels.First, txid, txid)
	}
	source := &uneven{Source: Of(w.a, "app")}
	for i, change := range []func(){func() {}, func() {
		w.put(t, levels.Snapshot, 1, 15)
		if err := w.a.Delete(t.Context(), "app", []levels.File{{Level: levels.First, Min: 3, Max: 3}}); err != nil {
			t.Fatal(err)
		}
	}} {
		source.lists = 0
		catalog, err := Read(t.Context(), source)
		if err != nil {
			t.Fatal(err)
		}
		change()
		path := filepath.Join(t.TempDir(), "out.db")
		_, err = Restore(t.Context(), Config{Catalog: catalog, Path: path})
		if err := errors.Join(err, w.h.Check(path, 20)); err != nil || source.lists != i+1 {
			t.Fatalf("listed %d times, want %d: %v", source.lists, i+1, err)
		}
	}
}

// uneven is a Source whose first listings lack a file.
type uneven struct {
	Source
	lists, lacking int
	lacks          func(levels.File) bool
}

func (s *uneven) List(ctx context.Context) ([]levels.File, error) {
	files, err := s.Source.List(ctx)
	if s.lists++; s.lists <= s.lacking {
		files = slices.DeleteFunc(files, s.lacks)
	}
	return files, err
}

// TestListingsAreNotOfOneMoment: a listing may have a file that was written while
// it ran, and lack the one written before it. A gap that stays is one.
func TestListingsAreNotOfOneMoment(t *testing.T) {
	t.Parallel()
	w := newWorld(t, history.Config{Seed: 16}, 20)
	for txid := ltx.TXID(1); txid <= 20; txid++ {
		w.put(t, levels.First, txid, txid)
	}
	for lacking, want := range map[int]int{0: 1, 1: 2, 1000: 2} {
		source := &uneven{Source: Of(w.a, "app"), lacking: lacking, lacks: func(f levels.File) bool { return f.Min == 19 }}
		path := filepath.Join(t.TempDir(), "out.db")
		_, err := Restore(t.Context(), Config{Sources: []Source{source}, Path: path})
		if lacking == 1000 {
			if plan, ok := errors.AsType[*PlanError](err); !ok || plan.Reached != 18 {
				t.Errorf("a gap: %v", err)
			}
		} else if err := errors.Join(err, w.h.Check(path, 20)); err != nil {
			t.Errorf("%d listings lack a file: %v", lacking, err)
		}
		if source.lists != want {
			t.Errorf("%d listings, want %d", source.lists, want)
		}
	}
}

func TestStretches(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		files []File
		want  []Points
	}{
		{at("9:1-4", "1:5-6", "1:8-9", "9:1-12", "1:13-20", "9:1-16"), []Points{{4, 6}, {12, 20}}},
		{at("9:1-1", "1:1-9", "1:10-12", "0:12-13"), []Points{{1, 13}}}, // Litestream snapshots TXID 1 first
		{at("9:1-1", "9:1-9", "1:10-12"), []Points{{1, 1}, {9, 12}}},
	} {
		c := &Catalog{Files: tt.files}
		if got := c.Stretches(); !slices.Equal(got, tt.want) {
			t.Errorf("%v, want %v", got, tt.want)
		}
	}
}
