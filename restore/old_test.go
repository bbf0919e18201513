package restore

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/compactor"
	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/objstore/dir"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/objstore/mem"
	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/history"
	"github.com/ltxstream/ltxstream/testenv/litestream"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

// oldArchive is a replica that Litestream v0.5.15 wrote, the last version with
// pages as LZ4 frames: levels 0 and 1 and snapshots of a database with pages of
// 512 bytes. Beside it are the SHA-256 of what `litestream restore -txid` of the
// same version made of each TXID.
const oldArchive = "litestream-0-5-15"

func litestreamStates(t *testing.T) map[ltx.TXID]string {
	t.Helper()
	f, err := os.Open("testdata/" + oldArchive + ".sha256")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	states := map[ltx.TXID]string{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		sum, text, _ := strings.Cut(lines.Text(), " ")
		txid, err := ltx.ParseTXID(text)
		if err != nil {
			t.Fatal(err)
		}
		states[txid] = sum
	}
	return states
}

func sumOf(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(b))
}

// TestOldLitestream: each point of a real archive, from its own files and from what
// a merge makes of them, is what Litestream itself restored.
func TestOldLitestream(t *testing.T) {
	t.Parallel()
	store, err := dir.New(t.Context(), dir.Config{Path: "testdata"})
	if err != nil {
		t.Fatal(err)
	}
	theirs := levels.New(store, levels.Decimal)
	catalog, err := Read(t.Context(), Of(theirs, oldArchive))
	if err != nil {
		t.Fatal(err)
	}
	if len(catalog.Files) != 20 {
		t.Fatalf("%d files", len(catalog.Files))
	}
	ours := levels.New(mem.New(), levels.Decimal)
	var upTo []levels.File
	for _, f := range catalog.Files {
		if _, err := compactor.Inspect(t.Context(), theirs, oldArchive, f.File); err != nil {
			t.Error(err)
		}
		if f.Level == levels.Stream {
			upTo = append(upTo, f.File)
			inputs, size := compactor.Inputs(theirs, oldArchive, upTo)
			if _, _, err := compactor.Store(t.Context(), compactor.StoreConfig{Archive: ours, DB: "app"}, levels.Snapshot, inputs, size); err != nil {
				t.Fatal(err)
			}
		}
	}
	states := litestreamStates(t)
	for txid, want := range states {
		for name, s := range map[string]Source{"theirs": Of(theirs, oldArchive), "merged": Of(ours, "app")} {
			path := filepath.Join(t.TempDir(), "out.db")
			if _, err := Restore(t.Context(), Config{Sources: []Source{s}, Target: Target{TXID: txid}, Path: path}); err != nil {
				t.Fatalf("%s, TXID %s: %v", name, txid, err)
			}
			if got := sumOf(t, path); got != want {
				t.Errorf("%s, TXID %s: %s, Litestream restored %s", name, txid, got, want)
			}
			var answer string
			if err := testenv.OpenDB(t, path, sqlconn.Options{}).QueryRow("PRAGMA integrity_check").Scan(&answer); err != nil || answer != "ok" {
				t.Errorf("%s, TXID %s: integrity check: %q, %v", name, txid, answer, err)
			}
		}
	}
	if len(states) != 12 {
		t.Errorf("%d points", len(states))
	}
}

// TestLitestreamReadsMergedOldFiles: what a merge makes of old files, LZ4 frames
// still, today's Litestream restores.
func TestLitestreamReadsMergedOldFiles(t *testing.T) {
	t.Parallel()
	theirs, err := dir.New(t.Context(), dir.Config{Path: "testdata"})
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	ours, err := dir.New(t.Context(), dir.Config{Path: root})
	if err != nil {
		t.Fatal(err)
	}
	from, to := levels.New(theirs, levels.Decimal), levels.New(ours, levels.Decimal)
	files := []levels.File{{Level: levels.Snapshot, Min: 1, Max: 4}, {Level: levels.First, Min: 4, Max: 6}, {Level: levels.First, Min: 7, Max: 9}, {Level: levels.First, Min: 10, Max: 12}}
	for level, some := range map[levels.Level][]levels.File{levels.Snapshot: files[:2], levels.First: files[2:]} {
		inputs, size := compactor.Inputs(from, oldArchive, some)
		if _, _, err := compactor.Store(t.Context(), compactor.StoreConfig{Archive: to, DB: "app"}, level, inputs, size); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "out.db")
	litestream.Current.MustRun(t, nil, "restore", "-o", path, "file://"+filepath.Join(root, "app"))
	if got, want := sumOf(t, path), litestreamStates(t)[12]; got != want {
		t.Errorf("Litestream %s made %s of it, %s of the files themselves", litestream.Current, got, want)
	}
}

// TestOldLitestreamDamaged: a snapshot of it, damaged or cut anywhere, is named and
// no output is made.
func TestOldLitestreamDamaged(t *testing.T) {
	t.Parallel()
	snapshot := levels.File{Level: levels.Snapshot, Min: 1, Max: 12}
	a := levels.New(mem.New(), levels.Decimal)
	good, err := os.ReadFile(filepath.Join("testdata", levels.New(mem.New(), levels.Decimal).Key(oldArchive, snapshot)))
	if err != nil {
		t.Fatal(err)
	}
	want := litestreamStates(t)[12]
	restore := func(b []byte) (string, error) {
		if _, err := a.Store().Put(t.Context(), a.Key("app", snapshot), bytes.NewReader(b), objstore.PutOptions{Timestamp: time.UnixMilli(1)}); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "out.db")
		_, err := Restore(t.Context(), Config{Sources: []Source{Of(a, "app")}, Path: path})
		return path, err
	}
	refused := func(what string, b []byte) {
		t.Helper()
		path, err := restore(b)
		if err == nil && sumOf(t, path) == want {
			return // another LZ4 block for the same page
		}
		if damage, ok := errors.AsType[*DamageError](err); !ok || damage.Key != a.Key("app", snapshot) {
			t.Errorf("%s: %v, want a DamageError about %s", what, err, a.Key("app", snapshot))
		}
		if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 0 {
			t.Errorf("%s: left behind: %v", what, left)
		}
	}
	if path, err := restore(good); err != nil || sumOf(t, path) != want {
		t.Fatalf("undamaged: %v", err)
	}
	const seed = 16
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, seed))
	for at := 0; at < len(good); at += 1 + rng.IntN(20) {
		b := bytes.Clone(good)
		b[at] ^= 1 << rng.IntN(8)
		refused(fmt.Sprintf("byte %d", at), b)
		refused(fmt.Sprintf("cut at %d", at), good[:at])
	}
}

// TestOldFiles: archives in the older form and in both, with checksums of the
// database and without.
func TestOldFiles(t *testing.T) {
	t.Parallel()
	for name, old := range map[string]func(ltx.TXID, uint32) bool{
		"all":   func(ltx.TXID, uint32) bool { return true },
		"first": func(txid ltx.TXID, _ uint32) bool { return txid < 15 },
		"pages": func(txid ltx.TXID, pgno uint32) bool { return (pgno+uint32(txid))%3 == 0 },
	} {
		for _, none := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%v", name, none), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, history.Config{Seed: 16, Old: old, NoChecksums: none}, 30)
				for _, txid := range w.fill(t, rand.New(rand.NewPCG(16, 2))) {
					path, _, err := w.restore(t, Target{TXID: txid})
					if err := errors.Join(err, w.h.Check(path, txid)); err != nil {
						t.Fatal(err)
					}
				}
			})
		}
	}
}
