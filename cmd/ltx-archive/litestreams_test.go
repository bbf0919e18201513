package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/daemon"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/app"
	"github.com/ltxstream/ltxstream/testenv/bank"
	"github.com/ltxstream/ltxstream/testenv/child"
	"github.com/ltxstream/ltxstream/testenv/litestream"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

// theirs is an archive that Litestream makes of a bank, and ltx-archive reads.
type theirs struct {
	*place
	v      litestream.Version
	db     string // path of the application's database
	folder string // below the place
	above  string // our URL
	name   string // of the database there
}

func newTheirs(t *testing.T, pl *place, v litestream.Version, name string) *theirs {
	t.Helper()
	th := &theirs{place: pl, v: v, db: filepath.Join(t.TempDir(), "app.db")}
	if pl.node != nil {
		th.folder, th.above, th.name = name, pl.url(name), levels.Root
	} else {
		th.folder, th.above, th.name = "tenants/"+name+".db", pl.url("tenants"), name+".db"
	}
	return th
}

// replicate starts Litestream, which compacts all the time, and waits until it has
// written something.
func (th *theirs) replicate(t testing.TB, lines ...string) *child.Process {
	t.Helper()
	lines = append(lines, "levels: [{interval: 300ms}, {interval: 700ms}]", "l0-retention-check-interval: 100ms")
	p := th.v.Start(t, th.env, "replicate", "-config", th.config(t, th.folder, th.db, lines...))
	testenv.Until(t, patience, "a first file", func() error {
		if got := th.execute(t, "ls", th.above, th.name); got.code != 0 {
			return errors.New(got.stderr)
		}
		return p.Err()
	})
	return p
}

// restored restores by ltx-archive.
func (th *theirs) restored(t testing.TB, flags ...string) (string, outcome) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out.db")
	return out, th.execute(t, append([]string{"restore", th.above, th.name, out, "--json", "--integrity-check=full", "--no-stream"}, flags...)...)
}

// files are those that ls tells.
func (th *theirs) files(t testing.TB) []fileListing {
	t.Helper()
	return decode[[]listing](t, th.execute(t, "ls", th.above, th.name, "--json", "--files").want(t, 0))[0].Files
}

// state is what a restored bank says; one that never was fails the test.
func state(t testing.TB, path string) bank.State {
	t.Helper()
	db, err := sqlconn.Open(path, sqlconn.Options{Mode: "ro"})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s, err := bank.Check(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// plain is a copy of a database without the table that Litestream writes to when
// it likes.
func plain(t testing.TB, path string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "plain.db")
	db, err := sqlconn.Open(path, sqlconn.Options{Mode: "ro"})
	if err == nil {
		_, err = db.ExecContext(t.Context(), "VACUUM INTO ?", out)
		err = errors.Join(err, db.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	if db, err = sqlconn.Open(out, sqlconn.Options{}); err == nil {
		_, err = db.ExecContext(t.Context(), "DROP TABLE IF EXISTS _litestream_seq")
		err = errors.Join(err, db.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestReadsLitestreams: what Litestream writes is listed, verified and restored
// here, while it writes, compacts and deletes; afterwards each of its transactions
// and times, to the very bytes that it restores itself.
func TestReadsLitestreams(t *testing.T) {
	t.Parallel()
	eachPlace(t, func(t *testing.T, pl *place) { readsTheirs(t, pl, litestream.Current) })
}

// TestReadsOlderLitestreams: the same of 0.5.17.
func TestReadsOlderLitestreams(t *testing.T) {
	t.Parallel()
	readsTheirs(t, directoryPlace(t), litestream.NoChecksums)
}

func readsTheirs(t *testing.T, pl *place, v litestream.Version) {
	t.Helper()
	_ = v.Path(t) // skips early
	newTheirs(t, pl, v, "live").readsLive(t)
	newTheirs(t, pl, v, "kept").readsPoints(t)
}

// readsLive reads while Litestream writes: nothing fails because a file is gone,
// and no state is one that never was.
func (th *theirs) readsLive(t *testing.T) {
	t.Helper()
	writer := testenv.App(t, app.Config{Path: th.db, DB: sqlconn.WAL(), Rate: 100, Seed: 1})
	if _, err := writer.WaitFor(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
	p := th.replicate(t, "l0-retention: 300ms", "snapshot: {interval: 1s, retention: 2s}")
	var seq int64
	seen, round := &sightings{files: map[string]levels.Level{}}, 0
	testenv.Until(t, patience, "files of all levels that come and go", func() error {
		out, got := th.restored(t)
		got.want(t, 0)
		s := state(t, out)
		if s.Seq < seq {
			t.Errorf("restored seq %d after %d", s.Seq, seq)
		}
		seq = s.Seq
		th.execute(t, "verify", th.above, th.name, "--read-data=full").want(t, 0, " 0 problems")
		round++
		return seen.add(th.files(t))
	})
	t.Logf("%d rounds, %d files", round, len(seen.files))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := writer.Finish(ctx); err != nil {
		t.Fatal(err)
	}
	litestream.Stop(t, p)
	out, got := th.restored(t)
	got.want(t, 0)
	testenv.CompareRows(t, plain(t, th.db), plain(t, out))
	th.execute(t, "verify", th.above, th.name, "--read-data=full").want(t, 0, " 0 problems")
}

// sightings are the files that were seen so far.
type sightings struct {
	files map[string]levels.Level // by key
	gone  map[levels.Level]bool   // levels from which some vanished
}

// add says what was not seen yet.
func (s *sightings) add(files []fileListing) error {
	now, have := map[string]bool{}, map[levels.Level]bool{}
	for _, f := range files {
		s.files[f.Key], now[f.Key] = f.Level, true
	}
	s.gone = map[levels.Level]bool{}
	for key, level := range s.files {
		have[level] = true
		if !now[key] {
			s.gone[level] = true
		}
	}
	if !have[1] || !have[2] || !s.gone[levels.Stream] || !s.gone[levels.Snapshot] {
		return fmt.Errorf("seen of levels %v, vanished from %v", have, s.gone)
	}
	return nil
}

// readsPoints restores what Litestream wrote and kept, and holds it against copies
// and against what Litestream restores.
func (th *theirs) readsPoints(t *testing.T) {
	t.Helper()
	db, teller := testenv.Bank(t, th.db, sqlconn.WAL(), 2)
	p := th.replicate(t, "l0-retention: 1h", "snapshot: {interval: 1s, retention: 1h}")
	points := map[ltx.TXID]point{}
	for range 3 {
		pt := th.point(t, teller)
		if _, err := db.ExecContext(t.Context(), "VACUUM INTO ?", pt.copy); err != nil {
			t.Fatal(err)
		}
		out, got := th.restored(t, stamp(pt.time))
		got.want(t, 0)
		testenv.CompareRows(t, plain(t, pt.copy), plain(t, out))
		points[pt.pos.TXID] = pt
	}
	litestream.Stop(t, p)

	newest := th.byBoth(t)
	testenv.CompareRows(t, plain(t, th.db), plain(t, newest))
	n := 0
	for _, f := range th.files(t) {
		if f.Level != levels.Stream {
			continue
		}
		n++
		out := th.byBoth(t, "-txid", f.Max.String())
		if pt, ok := points[f.Max]; ok {
			testenv.CompareRows(t, plain(t, pt.copy), plain(t, out))
			delete(points, f.Max)
		}
	}
	if t.Logf("%d files of level 0", n); len(points) > 0 {
		t.Errorf("level 0 has no file of the points %v", points)
	}
	th.execute(t, "ls", th.url(th.folder)).want(t, 0, ".: restorable from TXID 0000000000000001")
	th.execute(t, "verify", th.url(th.folder), ".", "--read-data=full").want(t, 0, " 0 problems")
}

// point makes some transfers and waits until they can be restored.
func (th *theirs) point(t *testing.T, teller *bank.Teller) (pt point) {
	t.Helper()
	var seq int64
	for range 10 {
		var err error
		if seq, err = teller.Transfer(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	testenv.Until(t, patience, "the transfers to be restored", func() error {
		out, got := th.restored(t)
		r := decode[result](t, got.want(t, 0))
		pt.pos.TXID, pt.time = r.TXID, r.Timestamp
		if s := state(t, out); s.Seq != seq {
			return fmt.Errorf("seq %d, want %d", s.Seq, seq)
		}
		return nil
	})
	pt.copy = filepath.Join(t.TempDir(), "copy.db")
	return pt
}

// byBoth restores by both programs, with a flag as Litestream spells it, fails the
// test unless the bytes are the same, and returns the path of ours.
func (th *theirs) byBoth(t testing.TB, flag ...string) string {
	t.Helper()
	flags := flag
	if len(flag) > 0 {
		flags = []string{"-" + flag[0], flag[1]}
	}
	ours, got := th.restored(t, flags...)
	got.want(t, 0)
	out := filepath.Join(t.TempDir(), "theirs.db")
	th.v.MustRun(t, th.env, append(append([]string{"restore", "-o", out}, flag...), th.litestream(t, th.folder)...)...)
	a, errA := os.ReadFile(ours)
	b, errB := os.ReadFile(out)
	if err := errors.Join(errA, errB); err != nil || !bytes.Equal(a, b) {
		t.Errorf("%v: %d bytes, Litestream restores %d others: %v", flag, len(a), len(b), err)
	}
	return ours
}

// TestNamesOfLitestreams: its paths have any number of segments and any
// characters; where those cannot be keys, a directory can be read all the same.
func TestNamesOfLitestreams(t *testing.T) {
	t.Parallel()
	v := litestream.Current
	_ = v.Path(t)
	for _, path := range []string{"a/b/c/app.db", ".hidden/app.db", "my app.db", "données.db", "100%.db", "a:b.db"} {
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			pl := &place{replica: func(string) (string, []string) {
				return "", []string{"type: file", fmt.Sprintf("path: %q", filepath.Join(root, path))}
			}}
			th := &theirs{place: pl, v: v, db: filepath.Join(t.TempDir(), "app.db"), above: filepath.Join(root, path), name: levels.Root}
			testenv.Bank(t, th.db, sqlconn.WAL(), 1)
			litestream.Stop(t, th.replicate(t))
			out, got := th.restored(t)
			got.want(t, 0)
			testenv.CompareRows(t, plain(t, th.db), plain(t, out))
			dir, name := filepath.Split(filepath.Join(root, path))
			if code := execute(t, "ls", dir, name).code; levels.CheckDB(name) == nil != (code == 0) || code != 0 && code != daemon.ExitUsage {
				t.Errorf("by name: code %d", code)
			}
		})
	}
	for url, text := range map[string]string{"s3://bucket/my%20app.db": "prefix", "gs://bucket/donn%C3%A9es.db": "prefix", "abs://account@container/.hidden/app.db": "prefix"} {
		execute(t, "ls", url, ".").want(t, daemon.ExitUsage, text)
	}
}
