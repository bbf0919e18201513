package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/testenv/history"
)

func TestLs(t *testing.T) {
	t.Parallel()
	m := newMade(t, history.Config{Seed: 1}, 10)
	m.put(t, levels.Snapshot, 1, 4)
	m.first(t, 5, 8)
	last := m.put(t, levels.First, 9, 10)
	m.put(t, 2, 5, 8)
	all := execute(t, "ls", m.dir).want(t, 0, "DATABASE", "app: restorable from TXID 0000000000000004 to 000000000000000a")
	if one := execute(t, "ls", m.dir, dbName); one.stdout != all.stdout {
		t.Errorf("%s\nand of one database:\n%s", all.stdout, one.stdout)
	}
	execute(t, "ls", m.dir, dbName, "--files").want(t, 0, m.h.State(7).Time.Format(ltx.RFC3339Milli))
	execute(t, "ls", m.dir, "ap").want(t, 10, `"ap"`)

	got := decode[[]listing](t, execute(t, "ls", m.dir, "--json", "--files").want(t, 0))
	if len(got) != 1 || got[0].DB != dbName || len(got[0].Points) != 1 || got[0].Points[0] != (points{4, 10}) || len(got[0].Files) != 7 {
		t.Fatalf("%+v", got)
	}
	first := got[0].Levels[0]
	if first.Level != levels.First || first.Files != 5 || first.Min != 5 || first.Max != 10 || !first.First.Equal(m.h.State(5).Time) || !first.Last.Equal(m.h.State(10).Time) {
		t.Errorf("level 1: %+v", first)
	}
	var bytes int64
	for _, f := range got[0].Files {
		st, err := os.Stat(filepath.Join(m.dir, f.Key))
		if err != nil || st.Size() != f.Size || !f.Timestamp.Equal(m.h.State(f.Max).Time) {
			t.Errorf("%+v: %v", f, err)
		}
		if f.Level == levels.First {
			bytes += f.Size
		}
	}
	if bytes != first.Bytes || filepath.Base(last) != filepath.Base(got[0].Files[4].Key) {
		t.Errorf("level 1 has %d bytes, says %+v", bytes, first)
	}
	// With a hole there are two stretches.
	m.put(t, levels.Snapshot, 1, 9)
	if err := os.Remove(m.path(levels.File{Level: levels.First, Min: 6, Max: 6})); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(m.path(levels.File{Level: 2, Min: 5, Max: 8})); err != nil {
		t.Fatal(err)
	}
	execute(t, "ls", m.dir).want(t, 0, "from TXID 0000000000000004 to 0000000000000005\n", "from TXID 0000000000000009 to 000000000000000a\n")
}

// TestRoot: the folder of one database by itself, as Litestream's URLs name it.
func TestRoot(t *testing.T) {
	t.Parallel()
	m := newMade(t, history.Config{Seed: 15}, 10)
	m.put(t, levels.Snapshot, 1, 4)
	m.first(t, 1, 10)
	folder, out := filepath.Join(m.dir, dbName), filepath.Join(t.TempDir(), "out.db")
	execute(t, "ls", folder).want(t, 0, ".: restorable from TXID 0000000000000001 to 000000000000000a")
	execute(t, "ls", folder, ".", "--files").want(t, 0, "000000000000000a")
	execute(t, "verify", folder, ".", "--read-data=full").want(t, 0, "11 files, 11 read whole, 0 problems")
	execute(t, "prune", folder, ".", "--dry-run").want(t, 0, "would delete 0 files")
	execute(t, "restore", folder, ".", out, "--txid=0000000000000007").want(t, 0, "restored TXID 0000000000000007")
	if err := m.h.Check(out, 7); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"ls"}, {"verify"}, {"prune"}, {"restore", "--force", out}, {"restore", "--force", "--no-stream", out}} {
		args := append([]string{args[0], folder, "other"}, args[1:]...)
		execute(t, args...).want(t, 10, `"other"`, `say "." for NAME`)
	}
	if got := execute(t, "ls", m.dir, "other").want(t, 10, "ltx-archive ls"); strings.Contains(got.stderr, `"."`) {
		t.Errorf("there is none at this URL: %s", got.stderr)
	}
}

// TestCopiedDirectory: a copy whose files have the time of the copying is told
// apart, and restores by time follow the headers.
func TestCopiedDirectory(t *testing.T) {
	t.Parallel()
	m := newMade(t, history.Config{Seed: 10}, 12)
	m.put(t, levels.Snapshot, 1, 4)
	m.first(t, 5, 12)
	for _, when := range []time.Time{time.Now(), m.h.State(1).Time.Add(-time.Hour), m.h.State(8).Time} {
		err := filepath.WalkDir(m.dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			return os.Chtimes(path, when, when)
		})
		if err != nil {
			t.Fatal(err)
		}
		execute(t, "verify", m.dir, dbName).want(t, 21, "metadata says", "its header", "follow the header")
		for _, p := range []ltx.TXID{4, 5, 8, 9, 12} {
			m.restore(t, m.h.At(m.h.State(p).Time).Pos.TXID, stamp(m.h.State(p).Time))
			if before := m.h.State(p).Time.Add(-time.Millisecond); p > 4 {
				m.restore(t, m.h.At(before).Pos.TXID, stamp(before))
			}
		}
	}
}
