package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/compactor"
	"github.com/ltxstream/ltxstream/internal/daemon"
	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/objstore/dir"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/objstore/objstoretest"
	"github.com/ltxstream/ltxstream/testenv/history"
)

// made is an archive in a directory, made of a history without a stream.
type made struct {
	h   *history.History
	dir string
	a   *levels.Archive
}

const dbName = "app"

func newMade(t testing.TB, cfg history.Config, n int) *made {
	t.Helper()
	m := &made{h: history.New(t, cfg), dir: filepath.Join(t.TempDir(), "archive")}
	m.h.Grow(t, n)
	store, err := dir.New(t.Context(), dir.Config{Path: m.dir, Create: true})
	if err != nil {
		t.Fatal(err)
	}
	m.a = levels.New(store, levels.Decimal)
	return m
}

// put archives a range at a level, and returns the path of the file.
func (m *made) put(t testing.TB, level levels.Level, lo, hi ltx.TXID) string {
	t.Helper()
	return m.putWith(t, compactor.MergeOptions{}, level, lo, hi)
}

func (m *made) putWith(t testing.TB, o compactor.MergeOptions, level levels.Level, lo, hi ltx.TXID) string {
	t.Helper()
	f, _, err := compactor.Store(t.Context(), compactor.StoreConfig{Archive: m.a, DB: dbName, MergeOptions: o}, level, m.inputs(lo, hi), 0)
	if err != nil {
		t.Fatal(err)
	}
	return m.path(f)
}

func (m *made) inputs(lo, hi ltx.TXID) (inputs []compactor.Input) {
	for txid := lo; txid <= hi; txid++ {
		inputs = append(inputs, compactor.Input{Name: fmt.Sprint(txid), Open: func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(m.h.File(txid))), nil
		}})
	}
	return inputs
}

// putAsLitestream archives a range without any checksum of the database.
func (m *made) putAsLitestream(t testing.TB, level levels.Level, lo, hi ltx.TXID) {
	t.Helper()
	var buf bytes.Buffer
	merged, err := compactor.Merge(t.Context(), &buf, m.inputs(lo, hi), compactor.MergeOptions{NoChecksums: true})
	if err == nil {
		_, err = m.a.Put(t.Context(), dbName, levels.File{Level: level, Min: lo, Max: hi, Timestamp: merged.Timestamp()}, &buf, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (m *made) path(f levels.File) string { return filepath.Join(m.dir, m.a.Key(dbName, f)) }

// first archives each transaction of a range by itself at level 1.
func (m *made) first(t testing.TB, lo, hi ltx.TXID) {
	t.Helper()
	for txid := lo; txid <= hi; txid++ {
		m.put(t, levels.First, txid, txid)
	}
}

// files are the keys of everything in the directory.
func (m *made) files(t testing.TB) (keys []string) {
	t.Helper()
	for info, err := range m.a.Store().List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	return keys
}

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

// alone fails the test when there is anything beside a file.
func alone(t testing.TB, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 || entries[0].Name() != filepath.Base(path) {
		t.Errorf("beside %s: %v, %v", path, entries, err)
	}
}

func empty(t testing.TB, dir string) {
	t.Helper()
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func decode[T any](t testing.TB, o outcome) (v T) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(o.stdout))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, o.stdout)
	}
	return v
}

func stamp(t time.Time) string { return "--timestamp=" + t.Format("2006-01-02T15:04:05.000Z07:00") }

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

// flip changes one bit of a file and leaves its times as they are.
func flip(t testing.TB, path string, at int64) {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[at] ^= 0x10
	if err := errors.Join(os.WriteFile(path, b, 0o600), os.Chtimes(path, st.ModTime(), st.ModTime())); err != nil {
		t.Fatal(err)
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	m := newMade(t, history.Config{Seed: 6, PageSize: 1024, MaxBlob: 2000}, 12)
	m.put(t, levels.Snapshot, 1, 4)
	m.first(t, 5, 12)
	m.put(t, 2, 5, 8)
	execute(t, "verify", m.dir, dbName).want(t, 0, "10 files, 0 read whole, 0 problems", "from TXID 0000000000000004 to 000000000000000c")
	whole := decode[report](t, execute(t, "verify", m.dir, dbName, "--read-data=full", "--json").want(t, 0))
	if whole.Files != 10 || whole.Read != 10 || len(whole.Problems) != 0 || len(whole.Points) != 1 || whole.Points[0] != (points{4, 12}) {
		t.Errorf("%+v", whole)
	}

	one := levels.File{Level: levels.First, Min: 7, Max: 7}
	good, err := os.ReadFile(m.path(one))
	if err != nil {
		t.Fatal(err)
	}
	size := int64(len(good))
	index := size - ltx.TrailerSize - 8 - int64(good[size-ltx.TrailerSize-8+7]) // small enough for one byte of length
	for name, at := range map[string]int64{
		"magic": 0, "page size": 8, "commit": 12, "min txid": 23, "timestamp": 39, "pre checksum": 45, "last of the header": ltx.HeaderSize - 1,
		"page number": ltx.HeaderSize + 3, "page": ltx.HeaderSize + 30, "last page": index - 9, "index": index + 1, "index length": size - ltx.TrailerSize - 1,
		"post checksum": size - 12, "file checksum": size - 1,
	} {
		flip(t, m.path(one), at)
		got := execute(t, "verify", m.dir, dbName, "--read-data=full").want(t, 21, m.a.Key(dbName, one), "ltx-archive: hint: ")
		if t.Failed() {
			t.Fatalf("%s, byte %d: %s", name, at, got.stdout)
		}
		flip(t, m.path(one), at)
	}
	for name, text := range map[string][]byte{"empty": nil, "short": good[:ltx.HeaderSize+3], "cut": good[:size-1], "longer": append(bytes.Clone(good), 0), "other": bytes.Repeat([]byte("x"), len(good))} {
		if err := os.WriteFile(m.path(one), text, 0o600); err != nil {
			t.Fatal(err)
		}
		got := execute(t, "verify", m.dir, dbName, "--read-data=full", "--json")
		if r := decode[report](t, got); got.code != 21 || len(r.Problems) == 0 || r.Problems[0].Key != m.a.Key(dbName, one) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if err := errors.Join(os.WriteFile(m.path(one), good, 0o600), os.Chtimes(m.path(one), time.Time{}, m.h.State(7).Time)); err != nil {
		t.Fatal(err)
	}
	execute(t, "verify", m.dir, dbName, "--read-data=full").want(t, 0)
}

// TestVerifyFindsHoles: whatever of level 1 is missing, a level above it or a
// snapshot behind it or not, points are lost.
func TestVerifyFindsHoles(t *testing.T) {
	t.Parallel()
	for name, more := range map[string]func(t *testing.T, m *made){
		"alone":            func(*testing.T, *made) {},
		"below a level":    func(t *testing.T, m *made) { m.put(t, 2, 5, 8) },
		"under a snapshot": func(t *testing.T, m *made) { m.put(t, levels.Snapshot, 1, 9) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMade(t, history.Config{Seed: 7}, 12)
			m.put(t, levels.Snapshot, 1, 4)
			m.first(t, 5, 12)
			more(t, m)
			execute(t, "verify", m.dir, dbName).want(t, 0)
			if err := os.Remove(m.path(levels.File{Level: levels.First, Min: 7, Max: 7})); err != nil {
				t.Fatal(err)
			}
			execute(t, "verify", m.dir, dbName).want(t, 22, "1 problems", "cannot be restored")
		})
	}
}

// vanishing is a store in which retention comes by after the first read.
type vanishing struct {
	objstore.Store
	once sync.Once
	do   func()
}

func (s *vanishing) Get(ctx context.Context, key string, offset, size int64) (io.ReadCloser, error) {
	s.once.Do(s.do)
	return s.Store.Get(ctx, key, offset, size)
}

// TestVerifyContinued: files of Litestream's, its newest at level 0, continued by
// the next transaction as a snapshot and by level 1 behind it, are one stretch.
func TestVerifyContinued(t *testing.T) {
	t.Parallel()
	m := newMade(t, history.Config{Seed: 14}, 12)
	m.putAsLitestream(t, levels.Snapshot, 1, 2)
	m.putAsLitestream(t, levels.First, 1, 3)
	m.putAsLitestream(t, levels.First, 4, 6)
	for txid := ltx.TXID(5); txid <= 8; txid++ {
		m.putAsLitestream(t, levels.Stream, txid, txid)
	}
	base := m.put(t, levels.Snapshot, 1, 9)
	m.first(t, 10, 12)
	execute(t, "verify", m.dir, dbName, "--read-data=full").want(t, 0, "11 files, 11 read whole, 0 problems", "from TXID 0000000000000002 to 000000000000000c\n")
	for _, txid := range []ltx.TXID{6, 7, 8, 9, 12} {
		m.restore(t, txid, "--txid="+txid.String())
	}
	if err := os.Remove(base); err != nil {
		t.Fatal(err)
	}
	execute(t, "verify", m.dir, dbName).want(t, 22, "behind TXID 0000000000000008", "cannot be restored")
}

// TestVerifyBesideRetention: files that are deleted while it looks are no damage;
// a hole they leave is one.
func TestVerifyBesideRetention(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		delete []levels.File
		code   int
	}{
		"retention": {[]levels.File{{Level: levels.First, Min: 5, Max: 5}, {Level: levels.First, Min: 6, Max: 6}, {Level: levels.Snapshot, Min: 1, Max: 4}}, 0},
		"hole":      {[]levels.File{{Level: levels.First, Min: 7, Max: 7}}, daemon.ExitGap},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMade(t, history.Config{Seed: 13}, 10)
			m.put(t, levels.Snapshot, 1, 4)
			m.put(t, levels.Snapshot, 1, 6)
			m.first(t, 5, 10)
			a := levels.New(&vanishing{Store: m.a.Store(), do: func() {
				if err := m.a.Delete(t.Context(), dbName, tt.delete); err != nil {
					t.Error(err)
				}
			}}, levels.Decimal)
			share, err := parseShare("full")
			if err != nil {
				t.Fatal(err)
			}
			v := newVerifier(a, dbName, share)
			if _, err := v.verify(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
			if code := daemon.Code(v.verdict()); code != tt.code {
				t.Errorf("code %d, want %d: %+v", code, tt.code, v.problems)
			}
		})
	}
}

// TestVerifyDamageThatTheStoreFinds: it is reported, and the rest looked at.
func TestVerifyDamageThatTheStoreFinds(t *testing.T) {
	t.Parallel()
	m := newMade(t, history.Config{Seed: 13}, 10)
	m.put(t, levels.Snapshot, 1, 4)
	m.first(t, 5, 10)
	rot := &objstoretest.Rot{Store: m.a.Store()}
	a := levels.New(rot, levels.Decimal)
	share, err := parseShare("full")
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{3, 110} { // header, pages
		key := a.Key(dbName, levels.File{Level: levels.First, Min: 7, Max: 7})
		rot.Spoil(key, at)
		v := newVerifier(a, dbName, share)
		if _, err := v.verify(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		if code := daemon.Code(v.verdict()); code != daemon.ExitUnverified || len(v.problems) == 0 || v.problems[0].Key != key {
			t.Errorf("byte %d: code %d, want %d: %+v", at, code, daemon.ExitUnverified, v.problems)
		}
	}
}

// TestVerifyAfterRetention: a snapshot that was kept without what followed it is
// no gap; one whose followers are there in part is at the end of one.
func TestVerifyAfterRetention(t *testing.T) {
	t.Parallel()
	m := newMade(t, history.Config{Seed: 16}, 12)
	for _, hi := range []ltx.TXID{2, 4, 8} {
		m.put(t, levels.Snapshot, 1, hi)
	}
	m.put(t, levels.First, 7, 9) // the point at 8 rests on it too
	m.first(t, 10, 12)
	execute(t, "verify", m.dir, dbName).want(t, 0, "from TXID 0000000000000004 to 0000000000000004", "from TXID 0000000000000008 to 000000000000000c", " 0 problems")
	m.first(t, 6, 6)
	execute(t, "verify", m.dir, dbName).want(t, 22, "between TXID 0000000000000004 and 0000000000000008")
}

// TestVerifyFindsStrangers: files without checksums are Litestream's, from before
// ltx-archive went on at that place, or its own, which then are in the metadata;
// else somebody writes there.
func TestVerifyFindsStrangers(t *testing.T) {
	t.Parallel()
	m := newMade(t, history.Config{Seed: 18}, 12)
	m.putAsLitestream(t, levels.Snapshot, 1, 2)
	m.putAsLitestream(t, levels.Stream, 3, 4)
	m.put(t, levels.First, 5, 8)
	m.putWith(t, compactor.MergeOptions{NoChecksums: true}, levels.First, 9, 10)
	execute(t, "verify", m.dir, dbName, "--read-data=full").want(t, 0, "4 files", " 0 problems")
	m.restore(t, 10)
	m.putAsLitestream(t, levels.Stream, 11, 12)
	execute(t, "verify", m.dir, dbName).want(t, 22, "0/000000000000000b-000000000000000c.ltx: it tells no checksum", "something else writes")
}

// TestVerifyWaitsForATimestamp: Litestream gives a file its name before its time.
func TestVerifyWaitsForATimestamp(t *testing.T) {
	t.Parallel()
	m := newMade(t, history.Config{Seed: 17}, 4)
	path := m.put(t, levels.First, 1, 4)
	if err := os.Chtimes(path, time.Time{}, time.Now()); err != nil {
		t.Fatal(err)
	}
	store := &vanishing{Store: m.a.Store(), do: func() { // after the listing
		if err := os.Chtimes(path, time.Time{}, m.h.Last().Time); err != nil {
			t.Error(err)
		}
	}}
	v := newVerifier(levels.New(store, levels.Decimal), dbName, func(string) bool { return false })
	if _, err := v.verify(t.Context(), 1); err != nil || v.verdict() != nil {
		t.Error(err, v.verdict())
	}
}

// uneven is a store whose listings lack a file the first time.
type uneven struct {
	objstore.Store
	lacks string // a key
	lists int
}

func (s *uneven) List(ctx context.Context, prefix, after string) iter.Seq2[objstore.Info, error] {
	first := strings.HasPrefix(s.lacks, prefix)
	if first {
		s.lists++
		first = s.lists == 1
	}
	return func(yield func(objstore.Info, error) bool) {
		for info, err := range s.Store.List(ctx, prefix, after) {
			if (!first || info.Key != s.lacks) && !yield(info, err) {
				return
			}
		}
	}
}

// TestVerifyBesideAWriter: a listing that has a file which was written while it
// ran, and lacks the one written before it, shows no gap.
func TestVerifyBesideAWriter(t *testing.T) {
	t.Parallel()
	m := newMade(t, history.Config{Seed: 14}, 10)
	m.first(t, 1, 10)
	store := &uneven{Store: m.a.Store(), lacks: m.a.Key(dbName, levels.File{Level: levels.First, Min: 9, Max: 9})}
	v := newVerifier(levels.New(store, levels.Decimal), dbName, func(string) bool { return true })
	catalog, err := v.verify(t.Context(), 1)
	if err := errors.Join(err, v.verdict()); err != nil {
		t.Fatal(err)
	}
	if len(catalog.Files) != 10 || v.read(catalog) != 10 || store.lists != 2 {
		t.Errorf("%d files, %d read, listed %d times", len(catalog.Files), v.read(catalog), store.lists)
	}
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

// TestVerifyFindsOtherHistory: two databases under one name.
func TestVerifyFindsOtherHistory(t *testing.T) {
	t.Parallel()
	m := newMade(t, history.Config{Seed: 8}, 8)
	m.first(t, 1, 5)
	m.h = history.New(t, history.Config{Seed: 9})
	m.h.Grow(t, 8)
	m.first(t, 6, 8)
	execute(t, "verify", m.dir, dbName).want(t, 22, "checksum")
	out := filepath.Join(t.TempDir(), "out.db")
	execute(t, "restore", m.dir, dbName, out, "--no-stream").want(t, 22, "does not continue")
	empty(t, filepath.Dir(out))
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
