package generations

import (
	"bytes"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/ltxstream/ltxstream/objstore/levels"
)

// TestOlderSnapshot: a damaged snapshot is passed over where an older one leads to
// the same point, and told; never for the sake of another generation.
func TestOlderSnapshot(t *testing.T) {
	t.Parallel()
	m, snapshots := withSnapshots(t, 3)
	for i, p := range slices.Backward(snapshots) {
		m.store.put(t, p.key, []byte("rubbish"), p.time)
		var told []error
		got, _, err := m.restored(t, Target{}, func(c *Config) { c.OnTrouble = func(err error) { told = append(told, err) } })
		if i == 0 {
			_, _, byTime := m.restored(t, Target{Time: m.last().time}) // the other generation has a snapshot from before that
			for _, err := range []error{err, byTime} {
				if damage, ok := errors.AsType[*levels.DamageError](err); !ok || damage.Key != p.key {
					t.Errorf("all damaged: %v, want a DamageError of %s", err, p.key)
				}
			}
			break
		}
		if err != nil || !bytes.Equal(got, m.last().db) || len(told) != len(snapshots)-i {
			t.Errorf("damaged from %s on: %v, told %v", p.key, err, told)
		}
	}
}

// withSnapshots makes up an archive whose newest generation has n snapshots or more.
func withSnapshots(t testing.TB, n int) (m *made, snapshots []part) {
	t.Helper()
	for seed := uint64(1); len(snapshots) < n; seed++ {
		m, snapshots = makeUp(t, shape{seed: seed, pageSize: 512, generations: 2, indexes: 5, segments: 3, pages: 4}), nil
		for _, p := range m.parts {
			if p.snapshot && p.generation == m.last().generation {
				snapshots = append(snapshots, p)
			}
		}
	}
	return m, snapshots
}

// TestRetention deletes, between the listing and the first request, what the newest
// point rested on, and has stored a newer snapshot before that.
func TestRetention(t *testing.T) {
	t.Parallel()
	m, snapshots := withSnapshots(t, 2)
	newest := snapshots[len(snapshots)-1]
	back := m.without(t, newest)
	var once sync.Once
	m.store.onGet = func(string) error {
		once.Do(func() {
			back()
			for _, p := range m.parts {
				if p.generation == newest.generation && p.index < newest.index {
					_ = m.without(t, p)
				}
			}
		})
		return nil
	}
	var told []error
	got, result, err := m.restored(t, Target{}, func(c *Config) { c.OnTrouble = func(err error) { told = append(told, err) } })
	if err != nil || !bytes.Equal(got, m.last().db) {
		t.Fatalf("%v, told %v", err, told)
	}
	if result.Snapshot.Key != newest.key || len(told) != 1 {
		t.Errorf("from %s, told %v", result.Snapshot.Key, told)
	}
}
