package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/testenv/history"
)

// restore restores without a stream and holds the output against a state.
func (m *made) restore(t testing.TB, want ltx.TXID, flags ...string) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out.db")
	got := execute(t, append([]string{"restore", m.dir, dbName, out, "--no-stream"}, flags...)...)
	if err := m.h.Check(out, want); got.code != 0 || err != nil {
		t.Fatalf("%v: %+v, %v", flags, got, err)
	}
	alone(t, out)
}

// TestRestorePoints: each point by its TXID and by its time, to the millisecond.
func TestRestorePoints(t *testing.T) {
	t.Parallel()
	m := newMade(t, history.Config{Seed: 2, PageSize: 1024}, 12)
	m.put(t, levels.Snapshot, 1, 4)
	m.first(t, 5, 8)
	m.put(t, levels.First, 9, 10)
	m.first(t, 11, 12)
	points := []ltx.TXID{4, 5, 6, 7, 8, 10, 11, 12}
	newest := func(when time.Time) (found ltx.TXID) {
		for _, p := range points {
			if !m.h.State(p).Time.After(when) {
				found = p
			}
		}
		return found
	}
	for _, p := range points {
		m.restore(t, p, "--txid="+p.String())
		when := m.h.State(p).Time
		m.restore(t, newest(when), stamp(when))
		if before := when.Add(-time.Millisecond); newest(before) > 0 {
			m.restore(t, newest(before), stamp(before))
		}
	}
	m.restore(t, 12)
	m.restore(t, 12, stamp(m.h.Last().Time.Add(time.Hour)), "--integrity-check=full", "--parallelism=1")
	m.restore(t, 12, "--timestamp=0 seconds ago", "--integrity-check=none")

	out := filepath.Join(t.TempDir(), "out.db")
	before := m.h.State(4).Time.Add(-time.Millisecond)
	for name, tt := range map[string]struct {
		flag  string
		texts []string
	}{
		"before the first":   {"--txid=0000000000000003", []string{"0000000000000003", "no point before", "0000000000000004"}},
		"inside a file":      {"--txid=0000000000000009", []string{"merged", "0000000000000008", "000000000000000a"}},
		"after the last":     {"--txid=000000000000000d", []string{"000000000000000d", "000000000000000c"}},
		"far after the last": {"--txid=00000000ffffffff", []string{"00000000ffffffff", "000000000000000c"}},
		"an earlier time":    {stamp(before), []string{before.Format(ltx.RFC3339Milli), "0000000000000004", m.h.State(4).Time.Format(ltx.RFC3339Milli)}},
	} {
		got := execute(t, "restore", m.dir, dbName, out, "--no-stream", tt.flag).want(t, 10, append(tt.texts, "ltx-archive ls")...)
		if name == "after the last" && strings.Contains(got.stderr, "missing") {
			t.Errorf("%s: nothing is missing, it ends there: %s", name, got.stderr)
		}
		empty(t, filepath.Dir(out))
	}
}

func TestRestoreDryRun(t *testing.T) {
	t.Parallel()
	m := newMade(t, history.Config{Seed: 3}, 10)
	m.put(t, levels.Snapshot, 1, 4)
	m.first(t, 5, 10)
	out := filepath.Join(t.TempDir(), "out.db")
	dry := execute(t, "restore", m.dir, dbName, out, "--no-stream", "--dry-run", "--txid=0000000000000006").
		want(t, 0, "would restore TXID 0000000000000006", "app/ltx/9/0000000000000001-0000000000000004.ltx", "app/ltx/1/0000000000000006-0000000000000006.ltx")
	if strings.Contains(dry.stdout, "0000000000000007") {
		t.Errorf("it would read what it does not need:\n%s", dry.stdout)
	}
	empty(t, filepath.Dir(out))
	// Whatever is at OUTPUT, or that there is no such directory, is no matter.
	execute(t, "restore", m.dir, dbName, m.dir, "--no-stream", "--dry-run").want(t, 0)
	execute(t, "restore", m.dir, dbName, filepath.Join(m.dir, "no", "x.db"), "--no-stream", "--dry-run").want(t, 0)

	plan := decode[result](t, execute(t, "restore", m.dir, dbName, out, "--no-stream", "--dry-run", "--json").want(t, 0))
	did := decode[result](t, execute(t, "restore", m.dir, dbName, out, "--no-stream", "--json").want(t, 0, `"fetched"`))
	if plan.Output != "" || did.Output != out || did.TXID != 10 || did.Checksum != m.h.Last().Pos.PostApplyChecksum || !did.Timestamp.Equal(m.h.Last().Time) || did.Size != m.h.Last().Size || len(did.Files) != 7 {
		t.Errorf("planned %+v\ndid %+v", plan, did)
	}
	if plan.Bytes != did.Bytes || plan.Requests != did.Requests || plan.TXID != did.TXID {
		t.Errorf("planned %+v\ndid %+v", plan, did)
	}
	if err := m.h.Check(out, 10); err != nil {
		t.Error(err)
	}
}

// TestRestoreForce: over an old database, whose WAL must not survive.
func TestRestoreForce(t *testing.T) {
	t.Parallel()
	m := newMade(t, history.Config{Seed: 4}, 5)
	m.first(t, 1, 5)
	out := filepath.Join(t.TempDir(), "out.db")
	execute(t, "restore", m.dir, dbName, out, "--no-stream", "--txid=0000000000000002").want(t, 0, "restored TXID")
	if err := os.WriteFile(out+"-wal", bytes.Repeat([]byte("frame"), 5000), 0o600); err != nil {
		t.Fatal(err)
	}
	execute(t, "restore", m.dir, dbName, out, "--no-stream").want(t, 2, "exists", "--force")
	if err := m.h.Check(out, 2); err != nil {
		t.Fatal(err)
	}
	execute(t, "restore", m.dir, dbName, out, "--no-stream", "--force").want(t, 0)
	if err := m.h.Check(out, 5); err != nil {
		t.Fatal(err)
	}
	alone(t, out)

	if err := os.Remove(out); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(out+"-wal", []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	execute(t, "restore", m.dir, dbName, out, "--no-stream").want(t, 2, "out.db-wal")
}

// TestRestorePassesOverDamage: a snapshot that is damaged costs a longer way, not
// the restore; where there is no other way nothing is made.
func TestRestorePassesOverDamage(t *testing.T) {
	t.Parallel()
	m := newMade(t, history.Config{Seed: 5}, 8)
	m.first(t, 1, 8)
	snapshot := m.put(t, levels.Snapshot, 1, 6)
	flip(t, snapshot, ltx.HeaderSize+20)
	m.restore(t, 8)
	last := levels.File{Level: levels.First, Min: 8, Max: 8}
	flip(t, m.path(last), ltx.HeaderSize+20)
	out := filepath.Join(t.TempDir(), "out.db")
	execute(t, "restore", m.dir, dbName, out, "--no-stream").want(t, 21, m.a.Key(dbName, last), "--read-data full")
	empty(t, filepath.Dir(out))
}
