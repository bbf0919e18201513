package generations

import (
	"bytes"
	"testing"
	"time"
)

// TestEveryPoint: after every object that was written, the database is what it was
// then: by time, by index, by generation, and the newest one.
func TestEveryPoint(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]shape{
		"small pages":    {seed: 1, pageSize: 512, generations: 2, indexes: 5, segments: 4, pages: 4},
		"usual pages":    {seed: 2, pageSize: 4096, generations: 3, indexes: 3, segments: 3, pages: 12},
		"largest pages":  {seed: 3, pageSize: 65536, generations: 1, indexes: 3, segments: 3, pages: 5},
		"big endian":     {seed: 4, pageSize: 1024, generations: 1, indexes: 4, segments: 4, pages: 6, bigEndian: true},
		"many segments":  {seed: 5, pageSize: 512, generations: 1, indexes: 2, segments: 60, pages: 2},
		"cut segments":   {seed: 8, pageSize: 512, generations: 2, indexes: 3, segments: 5, pages: 7, cut: true},
		"large segments": {seed: 6, pageSize: 65536, generations: 1, indexes: 2, segments: 2, pages: 24},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := makeUp(t, c)
			for i, s := range m.states {
				if i == len(m.states)-1 {
					m.holds(t, Target{}, s)
					m.holds(t, Target{Index: &s.index}, s)
					m.holds(t, Target{Time: s.time.AddDate(1, 0, 0)}, s)
				} else if next := m.states[i+1]; next.generation != s.generation {
					m.holds(t, Target{Generation: s.generation}, s)
				} else if next.index != s.index {
					m.holds(t, Target{Generation: s.generation, Index: &s.index}, s)
				}
				if i%(1+len(m.states)/10) == 0 { // each restore syncs to disk
					m.holds(t, Target{Time: s.time.Add(time.Second - 1)}, s)
				}
			}
		})
	}
}

// holds restores a target and compares it with a state.
func (m *made) holds(t *testing.T, target Target, want state) {
	t.Helper()
	got, result, err := m.restored(t, target)
	if err != nil {
		t.Fatalf("%+v (%s): %v", target, want.key, err)
	}
	if !bytes.Equal(got, want.db) {
		t.Fatalf("%+v (%s): %d bytes, want %d, or other ones", target, want.key, len(got), len(want.db))
	}
	if result.Generation != want.generation || result.Index != want.index {
		t.Errorf("%+v: generation %s index %s, want %s %s", target, result.Generation, result.Index, want.generation, want.index)
	}
}
