package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/history"
	"github.com/ltxstream/ltxstream/testenv/litestream"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

func writeOlder(t *testing.T) *litestream.Written {
	t.Helper()
	return litestream.Write(t, sqlconn.WAL(), uint64(time.Now().UnixNano()))
}

// restoresOlder restores w by the command, and holds the output against rows. There is
// no NATS server: nothing may ask for one.
func restoresOlder(t *testing.T, dir, db, rows string, flags ...string) outcome {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out.db")
	got := execute(t, append([]string{"restore", dir, db, out, "-s", "127.0.0.1:1", "--connect-wait=0s"}, flags...)...)
	if got.code != 0 {
		t.Fatalf("%v: %+v", flags, got)
	}
	alone(t, out)
	testenv.CompareRows(t, rows, out)
	return got
}

func stampNano(at time.Time) string { return "--timestamp=" + at.UTC().Format(time.RFC3339Nano) }

// TestOlder: what version 0.3 of Litestream wrote is listed, restored and verified.
func TestOlder(t *testing.T) {
	t.Parallel()
	w := writeOlder(t)
	last := w.Points[len(w.Points)-1]
	listed := decode[[]listing](t, execute(t, "ls", w.Dir, "--json", "--files").want(t, 0))
	if len(listed) != 1 || listed[0].DB != w.DB || len(listed[0].Generations) != 2 {
		t.Fatalf("%+v", listed)
	}
	for _, g := range listed[0].Generations {
		if g.Snapshots < 3 || len(g.Indexes) != 1 || len(g.Files) != g.Snapshots+g.Segments || g.First == nil || !g.First.Before(*g.Last) {
			t.Errorf("%+v", g)
		}
	}
	execute(t, "ls", w.Dir).want(t, 0, "GENERATION", "app: generation "+last.Generation+": restorable from index 0000000")
	execute(t, "ls", w.Dir, w.DB, "--files").want(t, 0, last.Generation+"/wal/"+last.Index+"_00000000.wal.lz4")

	restoresOlder(t, w.Dir, w.DB, last.Rows).want(t, 0, "restored generation "+last.Generation+" to index ")
	for _, p := range w.Points {
		restoresOlder(t, w.Dir, w.DB, p.Rows, stampNano(p.Time)).want(t, 0, p.Generation)
		restoresOlder(t, w.Dir, w.DB, p.Rows, "--generation="+p.Generation, stampNano(p.Time))
	}
	first := w.Points[2] // the last one of its generation
	restoresOlder(t, w.Dir, w.DB, first.Rows, "--generation="+first.Generation)
	restoresOlder(t, w.Dir, w.DB, first.Rows, "--generation="+first.Generation, "--index="+first.Index)
	did := decode[olderResult](t, restoresOlder(t, w.Dir, w.DB, last.Rows, "--json", "--integrity-check=full", "--parallelism=2").want(t, 0, `"fetched"`))
	would := decode[olderResult](t, execute(t, "restore", w.Dir, w.DB, "/no/where", "--json", "--dry-run").want(t, 0))
	if did.Format != formatOlder || did.Generation != last.Generation || did.Output == "" || did.Size == 0 || did.Offset == 0 || did.Timestamp == nil {
		t.Errorf("%+v", did)
	}
	if would.Output != "" || would.Index != did.Index || would.Bytes != did.Bytes || !slices.Equal(would.Files, did.Files) {
		t.Errorf("%+v\nand then\n%+v", would, did)
	}
	execute(t, "restore", w.Dir, w.DB, "/no/where", "--dry-run").want(t, 0, "would restore", did.Files[0].Key)

	out := filepath.Join(t.TempDir(), "out.db")
	execute(t, "restore", w.Dir, w.DB, out, "--generation=0123456789abcdef").want(t, 10, first.Generation, "ltx-archive ls")
	execute(t, "restore", w.Dir, w.DB, out, "--index=7fffffff").want(t, 10, "the last one is")
	execute(t, "restore", w.Dir, w.DB, out, "--timestamp=2001-01-01").want(t, 10, "the first one is of")
	execute(t, "restore", w.Dir, w.DB, out, "--txid=0000000000000001", "--no-stream").want(t, 10, "no files of database")
	execute(t, "restore", w.Dir, "ap", out, "--index=1").want(t, 10, `no generations of database "ap"`)
	empty(t, filepath.Dir(out))

	report := decode[report](t, execute(t, "verify", w.Dir, w.DB, "--read-data=full", "--json").want(t, 0))
	if report.Read != report.Files || report.Files != listed[0].Generations[0].Snapshots+listed[0].Generations[0].Segments+listed[0].Generations[1].Snapshots+listed[0].Generations[1].Segments {
		t.Errorf("%+v", report)
	}
	execute(t, "verify", w.Dir, w.DB).want(t, 0, "0 read whole, 0 problems", "app: generation "+first.Generation)
}

// segmentsOf are the paths of the WAL segments of a generation.
func segmentsOf(t *testing.T, w *litestream.Written, generation string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(w.Dir, w.DB, "generations", generation, "wal", "*"))
	if err != nil || len(paths) < 6 {
		t.Fatalf("%v, %v", paths, err)
	}
	return paths
}

// TestOlderDamaged: what is missing or damaged is named, by restore and by verify, with
// their exit codes.
func TestOlderDamaged(t *testing.T) {
	t.Parallel()
	w := writeOlder(t)
	first, last := w.Points[2], w.Points[len(w.Points)-1]
	out := filepath.Join(t.TempDir(), "out.db")

	segments := segmentsOf(t, w, first.Generation)
	index := filepath.Base(segments[len(segments)-2])[:8]
	for _, path := range segments { // the WAL before the last one, whole
		if strings.HasPrefix(filepath.Base(path), index) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
	}
	snapshots, err := filepath.Glob(filepath.Join(w.Dir, w.DB, "generations", first.Generation, "snapshots", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range snapshots[1:] {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	execute(t, "restore", w.Dir, w.DB, out, "--generation="+first.Generation).want(t, 22, "WAL index "+index+" is missing", "--index of a WAL before "+index)
	execute(t, "verify", w.Dir, w.DB).want(t, 22, index+" is missing", "gaps found")
	execute(t, "ls", w.Dir, w.DB).want(t, 0, first.Generation+": restorable from index 0")

	segments = segmentsOf(t, w, last.Generation)
	damaged := segments[len(segments)-1]
	b, err := os.ReadFile(damaged)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 0x10
	if err := os.WriteFile(damaged, b, 0o600); err != nil {
		t.Fatal(err)
	}
	execute(t, "restore", w.Dir, w.DB, out).want(t, 21, filepath.Base(damaged), "ltx-archive verify")
	execute(t, "verify", w.Dir, w.DB, "--read-data=full").want(t, 21, filepath.Base(damaged), "damage found")
	empty(t, filepath.Dir(out))
}

// TestTwoFormats: of a database in both formats, the one that was written last is
// restored; for a time, the one whose snapshot is the newest before it. It says which.
func TestTwoFormats(t *testing.T) {
	t.Parallel()
	w := writeOlder(t)
	last := w.Points[len(w.Points)-1]
	both := func(start time.Time) *made {
		m := newMade(t, history.Config{Seed: 3, Start: start, Pace: time.Second}, 6)
		m.put(t, levels.Snapshot, 1, 3)
		m.first(t, 4, 6)
		if err := os.CopyFS(filepath.Join(m.dir, dbName), os.DirFS(filepath.Join(w.Dir, w.DB))); err != nil {
			t.Fatal(err)
		}
		err := filepath.WalkDir(filepath.Join(w.Dir, w.DB), func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			rel, err := filepath.Rel(filepath.Join(w.Dir, w.DB), path)
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			return os.Chtimes(filepath.Join(m.dir, dbName, rel), time.Time{}, info.ModTime())
		})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	before, after := both(w.Points[0].Time.Add(-time.Hour)), both(last.Time.Add(time.Hour))

	restoresOlder(t, before.dir, dbName, last.Rows).want(t, 0, "in two formats", "format=generations", "restored generation")
	after.restore(t, 6)
	after.restore(t, 4, "--txid="+ltx.TXID(4).String())
	before.restore(t, 4, "--txid="+ltx.TXID(4).String())
	before.restore(t, 5, stamp(before.h.State(5).Time))
	after.restore(t, 5, stamp(after.h.State(5).Time))
	restoresOlder(t, before.dir, dbName, w.Points[1].Rows, stampNano(w.Points[1].Time))
	restoresOlder(t, after.dir, dbName, w.Points[1].Rows, stampNano(w.Points[1].Time))
	restoresOlder(t, after.dir, dbName, last.Rows, "--generation="+last.Generation)
	out := filepath.Join(t.TempDir(), "out.db")
	execute(t, "restore", after.dir, dbName, out, "--no-stream").want(t, 0, "format=ltx", "restored TXID")
	execute(t, "restore", before.dir, dbName, out, "--no-stream", "--force", "--timestamp=2001-01-01").want(t, 10)
	execute(t, "ls", after.dir).want(t, 0, "GENERATION", "LAST TXID", "restorable from index", "restorable from TXID")
	execute(t, "verify", after.dir, dbName, "--read-data=full").want(t, 0)
}
