package main

import (
	"bytes"
	"database/sql"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/daemon"
	"github.com/ltxstream/ltxstream/objstore/dir"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/testenv/history"
)

// litestreamDir is a folder as Litestream writes it, of a history.
type litestreamDir struct {
	h    *history.History
	path string
	a    *levels.Archive
}

func newLitestreamDir(t *testing.T, n int) *litestreamDir {
	t.Helper()
	d := &litestreamDir{h: history.New(t, history.Config{Seed: 41, NoChecksums: true, WAL: true}), path: t.TempDir()}
	store, err := dir.New(t.Context(), dir.Config{Path: d.path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	d.a = levels.New(store, levels.Decimal)
	d.grow(t, n)
	return d
}

func (d *litestreamDir) grow(t *testing.T, n int) {
	t.Helper()
	for first := d.h.Len() + 1; n > 0; n-- {
		d.h.Grow(t, 1)
		for ; first <= d.h.Len(); first++ {
			f := levels.File{Level: levels.Stream, Min: first, Max: first, Timestamp: d.h.State(first).Time}
			if _, err := d.a.Put(t.Context(), "my.app", f, bytes.NewReader(d.h.File(first)), nil); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// at reports whether a replica's status says that it has a TXID.
func at(txid ltx.TXID) string { return `"txid": "` + txid.String() + `"` }

func TestRunFollows(t *testing.T) {
	d := newLitestreamDir(t, 20)
	file, web := filepath.Join(t.TempDir(), "app.db"), freePort(t)
	args := []string{"my.app=" + file, "--archive", d.path, "--no-stream", "--poll-interval", "10ms", "--http", web}
	p := background(t, args...)
	reaches := func(p *process) {
		t.Helper()
		d.reached(t, p, web)
		waitFor(t, p, func() bool { return strings.Contains(get(t, "http://"+web+"/readyz"), `"ready": true`) })
	}
	reaches(p)
	d.grow(t, 5)
	reaches(p)
	if code := p.stop(); code != 0 {
		t.Fatalf("stopped with code %d; log:\n%s", code, p.text())
	}
	d.grow(t, 5)
	p = background(t, args...)
	reaches(p)
	if text := p.text(); strings.Contains(text, "seeding") {
		t.Errorf("it began anew after a restart:\n%s", text)
	}
	if code := p.stop(); code != 0 {
		t.Fatalf("stopped with code %d; log:\n%s", code, p.text())
	}
}

// TestRunExec: the command begins when the replica is there, and ends the rest.
func TestRunExec(t *testing.T) {
	d := newLitestreamDir(t, 3)
	file, seen := filepath.Join(t.TempDir(), "app.db"), filepath.Join(t.TempDir(), "seen")
	code, _, errs := execute(t, "my.app="+file, "--archive", d.path, "--no-stream", "--exec", "sh -c 'cp "+file+" "+seen+"; exit 7'")
	if code != 7 {
		t.Fatalf("code %d: %s", code, errs)
	}
	if st, err := os.Stat(seen); err != nil || st.Size() == 0 {
		t.Errorf("the command ran before the replica was there: %v", err)
	}
}

func TestBadFollow(t *testing.T) {
	replica := filepath.Join(t.TempDir(), "app.db")
	for name, tt := range map[string]struct {
		args []string
		text string
	}{
		"no archive":      {[]string{"app=" + replica, "--no-stream"}, "--archive"},
		"bad URL":         {[]string{"app=" + replica, "--no-stream", "--archive", "ftp://x/y"}, `"ftp"`},
		"bad name":        {[]string{"a/b=" + replica, "--no-stream", "--archive", t.TempDir()}, "a/b"},
		"bad interval":    {[]string{"app=" + replica, "--no-stream", "--archive", t.TempDir(), "--poll-interval", "-1s"}, "-1s"},
		"name for stream": {[]string{"my.app=" + replica, "--archive", t.TempDir()}, "my.app"},
	} {
		code, out, errs := execute(t, tt.args...)
		if code != daemon.ExitUsage || !strings.Contains(errs, tt.text) || !strings.Contains(errs, "nothing was done") || out != "" {
			t.Errorf("%s: code %d, stdout %q, stderr %q", name, code, out, errs)
		}
	}
	if left, _ := os.ReadDir(filepath.Dir(replica)); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// reached waits until a replica file holds what the history has at its end.
func (d *litestreamDir) reached(t *testing.T, p *process, web string) {
	t.Helper()
	waitFor(t, p, func() bool {
		resp, err := http.Get("http://" + web + "/status")
		if err != nil {
			return false // not listening yet
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return strings.Contains(string(body), at(d.h.Len()))
	})
}

// TestFollowOverAnotherDatabase: a file that is there already and is no replica gets
// the archive's content in place: who has it open sees the change.
func TestFollowOverAnotherDatabase(t *testing.T) {
	d := newLitestreamDir(t, 5)
	file, web := filepath.Join(t.TempDir(), "app.db"), freePort(t)
	db, err := sql.Open("sqlite3", "file:"+file+"?_journal_mode=WAL")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	tables := func() (n int) {
		t.Helper()
		if err := db.QueryRow("SELECT count(*) FROM sqlite_schema WHERE name='mine'").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if _, err := db.Exec("PRAGMA page_size=4096; CREATE TABLE mine(a); INSERT INTO mine VALUES(1)"); err != nil || tables() != 1 {
		t.Fatal(err)
	}
	p := background(t, "my.app="+file, "--archive", d.path, "--no-stream", "--poll-interval", "10ms", "--http", web)
	d.reached(t, p, web)
	if tables() != 0 {
		t.Error("the reader still sees the other database")
	}
	if code := p.stop(); code != 0 {
		t.Fatalf("stopped with code %d; log:\n%s", code, p.text())
	}
}

// TestFollowHalfWritten: files that somebody has begun to write, under a name of
// their own or, on a storage without a rename, under the final one, are waited for.
func TestFollowHalfWritten(t *testing.T) {
	d := newLitestreamDir(t, 5)
	file, web := filepath.Join(t.TempDir(), "app.db"), freePort(t)
	p := background(t, "my.app="+file, "--archive", d.path, "--no-stream", "--poll-interval", "10ms", "--http", web)
	d.reached(t, p, web)
	d.h.Grow(t, 1)
	next := d.h.Len()
	path := filepath.Join(d.path, d.a.Key("my.app", levels.File{Level: levels.Stream, Min: next, Max: next}))
	whole := d.h.File(next)
	for _, name := range []string{path + ".tmp", path} {
		if err := os.WriteFile(name, whole[:len(whole)/2], 0o644); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, p, func() bool { return strings.Contains(p.text(), "cannot be used") })
	if err := os.WriteFile(path, whole, 0o644); err != nil {
		t.Fatal(err)
	}
	d.reached(t, p, web)
	if code := p.stop(); code != 0 {
		t.Fatalf("stopped with code %d; log:\n%s", code, p.text())
	}
}
