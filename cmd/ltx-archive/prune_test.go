package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/testenv/history"
)

// TestPrune: what is shown is what goes, and nothing goes that was promised.
func TestPrune(t *testing.T) {
	t.Parallel()
	now := time.Now().Truncate(time.Millisecond)
	m := newMade(t, history.Config{Seed: 11, Start: now.Add(-30 * 24 * time.Hour), Pace: 11 * time.Hour}, 130)
	for lo := ltx.TXID(1); lo <= 130; lo += 2 {
		m.put(t, levels.First, lo, lo+1)
	}
	for hi := ltx.TXID(10); hi <= 130; hi += 10 {
		m.put(t, 2, hi-9, hi)
		m.put(t, levels.Snapshot, 1, hi)
	}
	if last := m.h.Last().Time; last.After(now) || now.Sub(last) > 15*24*time.Hour {
		t.Fatalf("the history ends at %s", last)
	}
	policy := []string{"--keep-window=" + (m.h.Last().Time.Sub(m.h.State(105).Time)).String(), "--keep-grace=0s", "--keep-daily=3", "--keep-weekly=2", "--keep-monthly=1"}
	prune := func(flags ...string) outcome {
		t.Helper()
		return execute(t, append(append([]string{"prune", m.dir, dbName}, policy...), flags...)...)
	}
	before := m.files(t)
	dry := decode[pruned](t, prune("--dry-run", "--json").want(t, 0))
	table := prune("--dry-run").want(t, 0, "would delete", "snapshot", "window")
	if now := m.files(t); len(now) != len(before) || len(dry.Deleted) == 0 {
		t.Fatalf("a dry run deleted: %d files of %d are left; %+v", len(now), len(before), dry)
	}
	did := decode[pruned](t, prune("--json").want(t, 0))
	if fmt.Sprint(did) != fmt.Sprint(dry) {
		t.Errorf("deleted %+v\nshown %+v", did, dry)
	}
	gone := map[string]bool{}
	for _, f := range dry.Deleted {
		gone[f.Key] = true
		if !strings.Contains(table.stdout, f.Key) {
			t.Errorf("the table lacks %s", f.Key)
		}
	}
	var left []string
	for _, key := range before {
		if !gone[key] {
			left = append(left, key)
		}
	}
	if got := m.files(t); fmt.Sprint(got) != fmt.Sprint(left) {
		t.Errorf("left %v\nwant %v", got, left)
	}
	if again := decode[pruned](t, prune("--json").want(t, 0)); len(again.Deleted) > 0 {
		t.Errorf("a second time: %+v", again.Deleted)
	}
	if dry.Anchor > 105 || dry.Anchor < 95 {
		t.Errorf("the oldest point of the window rests on %s", dry.Anchor)
	}
	for p := dry.Anchor; p <= 130; p += 2 {
		m.restore(t, p, "--txid="+p.String())
	}
	for _, k := range dry.Kept {
		m.restore(t, k.TXID, "--txid="+k.TXID.String())
	}
	execute(t, "verify", m.dir, dbName, "--read-data=full").want(t, 0)
	out := filepath.Join(t.TempDir(), "out.db")
	execute(t, "restore", m.dir, dbName, out, "--no-stream", "--txid=0000000000000050").want(t, 10, "cannot be reached")
}

// TestPruneNeedsAWholeSnapshot: when the snapshot that deletions rest on is
// damaged nothing is deleted.
func TestPruneNeedsAWholeSnapshot(t *testing.T) {
	t.Parallel()
	m := newMade(t, history.Config{Seed: 12}, 10)
	m.first(t, 1, 10)
	flip(t, m.put(t, levels.Snapshot, 1, 8), ltx.HeaderSize+20)
	before := m.files(t)
	execute(t, "prune", m.dir, dbName, "--keep-window=1ms", "--keep-grace=0s").want(t, 21, "0000000000000001-0000000000000008.ltx")
	if now := m.files(t); fmt.Sprint(now) != fmt.Sprint(before) {
		t.Errorf("left %v\nof %v", now, before)
	}
}
