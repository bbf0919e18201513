package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/bank"
	"github.com/ltxstream/ltxstream/testenv/child"
	"github.com/ltxstream/ltxstream/testenv/litestream"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

// point is a state of the primary that was archived, and a copy taken of it.
type point struct {
	pos  ltx.Pos
	time time.Time
	copy string
}

// ours is an archive that ltx-archive makes, and Litestream reads.
type ours struct {
	*place
	p      *primary
	teller *bank.Teller
	proc   *process
	web    string
	points []point

	folder, name string // where it is: place.url(folder), and the database's name there
}

// newOurs archives where Litestream can read it: in NATS it looks at the root of a
// bucket only.
func newOurs(t *testing.T, pl *place, flags ...string) *ours {
	t.Helper()
	if pl.node == nil {
		return newOursAt(t, pl, "archive", "app", flags...)
	}
	o := newOursAt(t, pl, "alone", levels.Root, flags...)
	o.replica = func(string) (string, []string) { return o.node.URL() + "/alone", nil }
	return o
}

func newOursAt(t *testing.T, pl *place, folder, name string, flags ...string) *ours {
	t.Helper()
	o := &ours{place: pl, folder: folder, name: name}
	if pl.node == nil {
		o.p = publish(t, "app")
	} else {
		o.p = publishOn(t, pl.node, "app")
	}
	if err := bank.Create(t.Context(), o.p.db, bank.Config{}); err != nil {
		t.Fatal(err)
	}
	var err error
	if o.teller, err = bank.NewTeller(t.Context(), o.p.db, 1, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.teller.Close() })
	o.p.commit(t) // so that the archiver need not look for databases again
	to := pl.url(folder)
	if name == levels.Root {
		to = "app=" + to
	}
	o.proc, o.web = o.p.archive(t, to, append([]string{"--flush=50ms", "--windows=300ms,1s", "--snapshot-interval=700ms"}, flags...)...)
	return o
}

// grow makes some transactions, and waits until they are archived.
func (o *ours) grow(t testing.TB) ltx.Pos {
	t.Helper()
	for range 20 {
		if _, err := o.teller.Transfer(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	pos := o.p.commit(t)
	archived(t, o.proc, o.web, pos)
	return pos
}

// mark grows, and keeps a copy of that point.
func (o *ours) mark(t testing.TB) {
	t.Helper()
	pt := point{pos: o.grow(t), copy: filepath.Join(t.TempDir(), "copy.db")}
	if _, err := o.p.db.ExecContext(t.Context(), "VACUUM INTO ?", pt.copy); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out.db")
	r := decode[result](t, o.execute(t, "restore", o.url(o.folder), o.name, out, "--no-stream", "--json", "--txid="+pt.pos.TXID.String()).want(t, 0))
	if pt.time = r.Timestamp; o.coarse { // Litestream sees whole seconds: what follows is of another one
		next := pt.time.Truncate(time.Second).Add(time.Second)
		pt.time = next.Add(-time.Millisecond)
		testenv.Until(t, patience, "the next second", func() error {
			if time.Now().Before(next) {
				return errors.New("not yet")
			}
			return nil
		})
	}
	o.points = append(o.points, pt)
}

// levelsOf counts the files of each level.
func (o *ours) levelsOf(t testing.TB) map[levels.Level]int {
	t.Helper()
	n := map[levels.Level]int{}
	for _, l := range decode[[]listing](t, o.execute(t, "ls", o.url(o.folder), o.name, "--json").want(t, 0))[0].Levels {
		n[l.Level] = l.Files
	}
	return n
}

// restoredBy has Litestream restore, and returns the path of the database.
func (o *ours) restoredBy(t testing.TB, v litestream.Version, flags ...string) (string, error) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out.db")
	args := append(append([]string{"restore", "-integrity-check", "full", "-o", out}, flags...), o.litestream(t, "archive/app")...)
	_, err := v.Run(t, o.env, args...)
	return out, err
}

// is fails the test unless a database is what the primary was at a point, to the
// byte.
func (pt point) is(t testing.TB, what, path string, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	if got := checksum(t, path); got != pt.pos.PostApplyChecksum {
		t.Errorf("%s: checksum %s, want %s", what, got, pt.pos)
	}
	testenv.CompareRows(t, pt.copy, path)
}

// before is how Litestream is asked for a time: it takes what is before it, not
// what is at it.
func (pt point) before() string { return pt.time.Add(time.Millisecond).Format(time.RFC3339Nano) }

// follower starts a follow-mode restore.
func (o *ours) follower(t testing.TB) (*child.Process, string) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "follow.db")
	args := append([]string{"restore", "-f", "-follow-interval", "50ms", "-o", out}, o.litestream(t, "archive/app")...)
	return litestream.Current.Start(t, o.env, args...), out
}

// followed waits until a follower has a position, and ends it.
func followed(t testing.TB, p *child.Process, path string, pos ltx.Pos) {
	t.Helper()
	testenv.Until(t, patience, "followed to "+pos.String(), func() error {
		select {
		case <-p.Done():
			t.Fatalf("the follower ended: %v", p.Err())
		default:
		}
		at, err := os.ReadFile(path + "-txid")
		if err == nil && strings.TrimSpace(string(at)) != pos.TXID.String() {
			err = fmt.Errorf("it is at %s", at)
		}
		return err
	})
	litestream.Stop(t, p)
}

// TestLitestreamReadsOurs: what ltx-archive wrote, the stock Litestream lists,
// follows while it grows, and restores: the newest, by TXID and by time.
func TestLitestreamReadsOurs(t *testing.T) {
	t.Parallel()
	eachPlace(t, func(t *testing.T, pl *place) {
		v := litestream.Current
		_ = v.Path(t) // skips early
		o := newOurs(t, pl)
		o.mark(t)
		follower, follow := o.follower(t)
		for range 2 {
			o.mark(t)
		}
		testenv.Until(t, patience, "files of levels 1, 2 and 9", func() error {
			if n := o.levelsOf(t); n[1] < 4 || n[2] == 0 || n[levels.Snapshot] == 0 {
				o.grow(t)
				return fmt.Errorf("%v", n)
			}
			return nil
		})
		o.mark(t)
		followed(t, follower, follow, o.points[len(o.points)-1].pos)
		testenv.CompareRows(t, o.points[len(o.points)-1].copy, follow)
		if code := o.proc.stop(); code != 0 {
			t.Fatalf("code %d: %s", code, o.proc.text())
		}

		o.listedBy(t, v)
		path, err := o.restoredBy(t, v)
		o.points[len(o.points)-1].is(t, "the newest", path, err)
		for i, pt := range o.points {
			path, err := o.restoredBy(t, v, "-txid", pt.pos.TXID.String())
			pt.is(t, "TXID "+pt.pos.TXID.String(), path, err)
			if i < len(o.points)-1 { // it takes no time behind the last file's
				path, err = o.restoredBy(t, v, "-timestamp", pt.before())
				pt.is(t, pt.before(), path, err)
			}
		}
	})
}

// listedBy holds what Litestream lists against what we list.
func (o *ours) listedBy(t testing.TB, v litestream.Version) {
	t.Helper()
	type row struct {
		Level    int    `json:"level"`
		Min      string `json:"min_txid"`
		Max      string `json:"max_txid"`
		Size     int64  `json:"size"`
		Modified string `json:"timestamp"`
	}
	var theirs []row
	out := "\n" + v.MustRun(t, o.env, append([]string{"ltx", "-level", "all", "-json"}, o.litestream(t, "archive/app")...)...)
	_, list, _ := strings.Cut(out, "\n[") // warnings are in front
	if err := json.Unmarshal([]byte("["+list), &theirs); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	files := decode[[]listing](t, o.execute(t, "ls", o.url(o.folder), o.name, "--json", "--files").want(t, 0))[0].Files
	for _, f := range files {
		if !slices.ContainsFunc(theirs, func(r row) bool {
			return r.Level == int(f.Level) && r.Min == f.Min.String() && r.Max == f.Max.String() && r.Size == f.Size
		}) {
			t.Errorf("Litestream does not list %s", f.Key)
		}
	}
	if len(theirs) != len(files) || len(files) == 0 {
		t.Errorf("Litestream lists %d files, we %d", len(theirs), len(files))
	}
}

// TestLitestreamNeedsChecksumsLeftOut: 0.5.17 reads what --no-checksums wrote, and
// refuses the rest.
func TestLitestreamNeedsChecksumsLeftOut(t *testing.T) {
	t.Parallel()
	v := litestream.NoChecksums
	_ = v.Path(t)
	for name, flags := range map[string][]string{"with": nil, "without": {"--no-checksums"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOurs(t, directoryPlace(t), flags...)
			for range 3 {
				o.mark(t)
			}
			if code := o.proc.stop(); code != 0 {
				t.Fatalf("code %d: %s", code, o.proc.text())
			}
			o.listedBy(t, v)
			if _, err := o.restoredBy(t, v); flags == nil {
				if err == nil || !strings.Contains(err.Error(), "post-apply checksum not allowed") {
					t.Errorf("%s reads files with checksums now: docs/litestream.md says that it does not (%v)", v, err)
				}
				return
			}
			for _, v := range []litestream.Version{v, litestream.Current} {
				path, err := o.restoredBy(t, v)
				o.points[2].is(t, "the newest", path, err)
				for _, pt := range o.points[:2] {
					path, err := o.restoredBy(t, v, "-txid", pt.pos.TXID.String())
					pt.is(t, "TXID "+pt.pos.TXID.String(), path, err)
					path, err = o.restoredBy(t, v, "-timestamp", pt.before())
					pt.is(t, pt.before(), path, err)
				}
			}
		})
	}
}

// TestLitestreamSeesTheRootOfABucket: it knows no path in a NATS bucket, in a URL
// or in its configuration, so that it does not find what lies below a name.
func TestLitestreamSeesTheRootOfABucket(t *testing.T) {
	t.Parallel()
	v := litestream.Current
	_ = v.Path(t)
	pl := natsPlace(t)
	o := newOursAt(t, pl, "archive", "app")
	o.mark(t)
	for _, more := range [][]string{nil, {"path: app"}} {
		o.replica = func(string) (string, []string) { return o.node.URL() + "/archive", more }
		if out := v.MustRun(t, nil, append([]string{"ltx", "-level", "all"}, o.litestream(t, "archive/app")...)...); strings.Contains(out, ".ltx") || strings.Count(out, "\n") > 1 {
			t.Errorf("%v: it finds files now: docs/litestream.md says that it does not:\n%s", more, out)
		}
		if _, err := o.restoredBy(t, v); err == nil {
			t.Errorf("%v: it restores now: docs/litestream.md says that it does not", more)
		}
	}
}

// TestLitestreamIntoOurs: its replicate takes a folder of ours for its own, and
// counts from TXID 1 again. Nothing stops it; verify sees it.
func TestLitestreamIntoOurs(t *testing.T) {
	t.Parallel()
	v := litestream.Current
	_ = v.Path(t)
	o := newOurs(t, directoryPlace(t))
	for range 3 {
		o.mark(t)
	}
	if code := o.proc.stop(); code != 0 {
		t.Fatalf("code %d: %s", code, o.proc.text())
	}
	th := &theirs{place: o.place, v: v, db: filepath.Join(t.TempDir(), "other.db"), folder: "archive/app", above: o.url("archive"), name: "app"}
	_, teller := testenv.Bank(t, th.db, sqlconn.WAL(), 2)
	p := th.replicate(t)
	testenv.Until(t, patience, "files of level 0", func() error {
		if _, err := teller.Transfer(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := o.levelsOf(t)[levels.Stream]; n < 3 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	litestream.Stop(t, p)
	o.execute(t, "verify", o.url(o.folder), o.name).want(t, 22, "something else writes to this place")
}
