package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/archiver"
	"github.com/ltxstream/ltxstream/internal/daemon"
	"github.com/ltxstream/ltxstream/publisher"
	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/app"
	"github.com/ltxstream/ltxstream/testenv/history"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
	"github.com/ltxstream/ltxstream/wire"
)

const patience = time.Minute

// process is a running command.
type process struct {
	cancel context.CancelCauseFunc
	done   chan struct{}
	code   int // after done
	mu     sync.Mutex
	log    strings.Builder
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(b)
}

func (p *process) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

func background(t testing.TB, args ...string) *process {
	t.Helper()
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(t.Context()))
	p := &process{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.code = run(ctx, args, strings.NewReader(""), io.Discard, p)
	}()
	t.Cleanup(func() { p.stop() })
	return p
}

// stop ends it as a signal does and returns its exit code.
func (p *process) stop() int {
	p.cancel(daemon.ErrInterrupted)
	<-p.done
	return p.code
}

// primary is a published database of the test's own process.
type primary struct {
	url  string // of the server
	node *testenv.Server
	db   *sql.DB
	pub  *publisher.Publisher
	rows int
	at   map[ltx.TXID]ltx.Pos // what sync returned
}

func publish(t testing.TB, db wire.DB) *primary {
	t.Helper()
	return publishOn(t, testenv.Node(t), db)
}

func publishOn(t testing.TB, node *testenv.Server, db wire.DB) *primary {
	t.Helper()
	path := filepath.Join(t.TempDir(), "app.db")
	p := &primary{url: node.URL(), node: node, db: testenv.OpenDB(t, path, sqlconn.WAL()), at: map[ltx.TXID]ltx.Pos{}}
	p.exec(t, "CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB)")
	var err error
	if p.pub, err = publisher.New(publisher.Config{JS: node.JetStream(), DB: db, Path: path, Logger: quiet}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- p.pub.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return p
}

func (p *primary) exec(t testing.TB, text string) {
	t.Helper()
	if _, err := p.db.ExecContext(t.Context(), text); err != nil {
		t.Fatal(err)
	}
}

// commit makes a transaction and returns its position in the stream.
func (p *primary) commit(t testing.TB) ltx.Pos {
	t.Helper()
	p.exec(t, "INSERT INTO t(b) VALUES (randomblob(5000))")
	p.rows++
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	pos, err := p.pub.Sync(ctx)
	if err != nil {
		t.Fatal(err)
	}
	p.at[pos.TXID] = pos
	return pos
}

// archive runs an archiver of all databases with a web server, and returns the
// address of that.
func (p *primary) archive(t testing.TB, to string, flags ...string) (*process, string) {
	t.Helper()
	web := freePort(t)
	return background(t, append([]string{"run", "--to", to, "-s", p.url, "--http", web}, flags...)...), web
}

// reached waits until /status says so.
func reached(t testing.TB, proc *process, web, what string, cond func(archiver.Status) bool) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Log(proc.text())
		}
	}()
	testenv.Until(t, patience, what, func() error {
		select {
		case <-proc.done:
			t.Fatalf("ended with code %d: %s", proc.code, proc.text())
		default:
		}
		_, body, err := fetch(web + "/status")
		if err != nil {
			return err
		}
		var all [][]archiver.Status
		if err := json.Unmarshal([]byte(body), &all); err != nil {
			t.Fatalf("%v in %s", err, body)
		}
		for _, s := range all[0] {
			if cond(s) {
				return nil
			}
		}
		return fmt.Errorf("not yet: %s", body)
	})
}

func archived(t testing.TB, proc *process, web string, pos ltx.Pos) {
	t.Helper()
	reached(t, proc, web, "archived "+pos.String(), func(s archiver.Status) bool { return s.Archived >= pos.TXID })
}

func fetch(url string) (code int, body string, err error) {
	defer http.DefaultClient.CloseIdleConnections()
	resp, err := http.Get("http://" + url)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// checksum is that of a database file, page by page.
func checksum(t testing.TB, path string) ltx.Checksum {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	size := int(b[16])<<8 | int(b[17])
	sum := ltx.Checksum(ltx.ChecksumFlag)
	for i := 0; (i+1)*size <= len(b); i++ {
		sum = ltx.ChecksumFlag | (sum ^ ltx.ChecksumPage(uint32(i+1), b[i*size:(i+1)*size]))
	}
	return sum
}

// restores restores and fails the test unless that gives exactly a position.
func (p *primary) restores(t testing.TB, from string, want ltx.Pos, flags ...string) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out.db")
	got := execute(t, append([]string{"restore", from, "app", out, "--json", "-s", p.url}, flags...)...).want(t, 0)
	if r := decode[result](t, got); r.TXID != want.TXID || r.Checksum != want.PostApplyChecksum || checksum(t, out) != want.PostApplyChecksum {
		t.Fatalf("%v: restored %+v with checksum %s, want %s", flags, r, checksum(t, out), want)
	}
	alone(t, out)
}

// TestRunAndRestore: from a stream into a directory and back, while the archiver
// runs, and the newest out of the stream once it is stopped.
func TestRunAndRestore(t *testing.T) {
	t.Parallel()
	p := publish(t, "app")
	to := filepath.Join(t.TempDir(), "archive")
	proc, web := p.archive(t, to, "--flush=50ms")
	var all []ltx.Pos
	for range 5 {
		pos := p.commit(t)
		archived(t, proc, web, pos) // so each is the end of a file
		all = append(all, pos)
	}
	last := all[len(all)-1]
	for path, want := range map[string]string{
		"/readyz?max_lag=10s": `"ready": true`, "/status": `"state": "archiving"`, "/metrics": `ltx_archive_txid{db="app",dest="file-`, "/healthz": "ok",
	} {
		if code, body, err := fetch(web + path); err != nil || code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: code %d, %v, lacks %s: %s", path, code, err, want, body)
		}
	}
	execute(t, "ls", to).want(t, 0, "to "+last.TXID.String())
	execute(t, "verify", to, "app", "--read-data=full").want(t, 0, " 0 problems")
	p.restores(t, to, last)

	if code := proc.stop(); code != 0 {
		t.Fatalf("stopped with code %d: %s", code, proc.text())
	}
	behind := p.commit(t)
	newest := p.commit(t)
	p.restores(t, to, newest)
	p.restores(t, to, behind, "--txid="+behind.TXID.String())
	p.restores(t, to, last, "--no-stream")
	p.restores(t, to, newest, stamp(time.Now().Add(time.Hour)))
	for _, l := range decode[[]listing](t, execute(t, "ls", to, "--json", "--files").want(t, 0)) {
		for _, f := range l.Files {
			pos, known := p.at[f.Max]
			if f.Level != 1 || !known {
				continue
			}
			p.restores(t, to, pos, "--txid="+pos.TXID.String())
			p.restores(t, to, pos, stamp(*f.Timestamp))
			if pos == last {
				p.restores(t, to, last, stamp(f.Timestamp.Add(time.Millisecond)))
			}
		}
	}

	out := filepath.Join(t.TempDir(), "out.db")
	free := freePort(t)
	execute(t, "restore", to, "app", out, "-s", free, "--connect-wait=0s").want(t, 1, "nothing answers", "hint: ", "--no-stream")
	execute(t, "restore", to, "app", out, "-s", free, "--connect-wait=0s", "--txid="+last.TXID.String(), "--dry-run").want(t, 0) // needs no stream
	execute(t, "restore", to, "app", out, "-s", p.url, "--stream=OTHER").want(t, 10, "OTHER", "--no-stream")
	execute(t, "restore", to, "app", out, "-s", p.url, "--txid=00000000ffffffff").want(t, 10, "history ends", newest.TXID.String())
	execute(t, "restore", to, "other", out, "-s", p.url).want(t, 10, `"other"`)
	execute(t, "restore", to, "app", out, "-s", p.url, "--dry-run").want(t, 0, "would restore TXID "+newest.TXID.String(), "app/ltx/0/")
	empty(t, filepath.Dir(out))
	execute(t, "restore", to, "app", filepath.Join(filepath.Dir(out), "no", "x.db"), "-s", p.url, "--dry-run").want(t, 0, newest.TXID.String())

	// An archive that is empty still: everything is in the stream.
	p.restores(t, t.TempDir(), newest)
	if code, _, err := fetch(web + "/healthz"); err == nil {
		t.Errorf("the web server answers after the end: %d", code)
	}
}

// TestRunFlushesAtItsEnd: what it has taken from the stream is archived when it
// is told to stop.
func TestRunFlushesAtItsEnd(t *testing.T) {
	t.Parallel()
	p := publish(t, "app")
	one, two := filepath.Join(t.TempDir(), "one"), filepath.Join(t.TempDir(), "two")
	proc, web := p.archive(t, one, "--flush=1h", "--to", two, "--stage-dir", t.TempDir())
	var pos ltx.Pos
	for range 3 {
		pos = p.commit(t)
	}
	for _, dir := range []string{one, two} {
		reached(t, proc, web, "staged", func(s archiver.Status) bool { return s.Staged == pos.TXID && s.URL == "file://"+dir })
	}
	if code := proc.stop(); code != 0 {
		t.Fatalf("code %d: %s", code, proc.text())
	}
	p.restores(t, one, pos, "--no-stream")
	p.restores(t, two, pos, "--no-stream")
}

// TestRunNames: of several databases the named ones alone are archived.
func TestRunNames(t *testing.T) {
	t.Parallel()
	p := publish(t, "app")
	other := publishOn(t, p.node, "app-2")
	to := t.TempDir()
	proc, web := p.archive(t, to, "--flush=50ms", "--log-format=json", "app-2")
	p.commit(t)
	archived(t, proc, web, other.commit(t))
	if code := proc.stop(); code != 0 {
		t.Fatalf("code %d: %s", code, proc.text())
	}
	if got := execute(t, "ls", to).want(t, 0, "app-2: restorable"); strings.Contains(got.stdout, "app: ") {
		t.Errorf("%s", got.stdout)
	}
}

// TestRunIntoAFolder: a place with a name is that database's own folder, where no
// other one goes, and which is not taken for the place of many afterwards.
func TestRunIntoAFolder(t *testing.T) {
	t.Parallel()
	p := publish(t, "app")
	other := publishOn(t, p.node, "app-2")
	own, all := filepath.Join(t.TempDir(), "own"), t.TempDir()
	proc, web := p.archive(t, "app="+own, "--to", all, "--flush=50ms")
	second := other.commit(t)
	reached(t, proc, web, "the other database", func(s archiver.Status) bool { return s.DB == "app-2" && s.Archived >= second.TXID })
	pos := p.commit(t)
	archived(t, proc, web, pos)
	if code := proc.stop(); code != 0 {
		t.Fatalf("code %d: %s", code, proc.text())
	}
	out := filepath.Join(t.TempDir(), "out.db")
	execute(t, "restore", own, ".", out, "--no-stream").want(t, 0)
	if sum := checksum(t, out); sum != pos.PostApplyChecksum {
		t.Errorf("checksum %s, want %s", sum, pos)
	}
	entries, err := os.ReadDir(own)
	if err != nil || len(entries) != 1 || entries[0].Name() != "ltx" {
		t.Errorf("%v, %v", entries, err)
	}
	execute(t, "ls", all).want(t, 0, "app: restorable", "app-2: restorable")
	execute(t, "run", "--to", own, "-s", p.url).want(t, 2, "folder of one database", "--to NAME=URL")
}

// TestRunWaitsForAStream: until there is one it is alive and not ready.
func TestRunWaitsForAStream(t *testing.T) {
	t.Parallel()
	node := testenv.Node(t)
	web, to := freePort(t), filepath.Join(t.TempDir(), "archive")
	proc := background(t, "--to", to, "-s", node.URL(), "--http", web, "--flush=50ms")
	testenv.Until(t, patience, "alive", func() error {
		code, _, err := fetch(web + "/healthz")
		if err == nil && code != http.StatusOK {
			err = errors.New("not alive")
		}
		return err
	})
	if code, body, err := fetch(web + "/readyz"); err != nil || code != http.StatusServiceUnavailable || !strings.Contains(body, "stream") {
		t.Errorf("ready without a stream: code %d, %v, %s", code, err, body)
	}
	p := publishOn(t, node, "app")
	archived(t, proc, web, p.commit(t))
	testenv.Until(t, patience, "ready", func() error {
		code, body, err := fetch(web + "/readyz")
		if err == nil && code != http.StatusOK {
			err = fmt.Errorf("code %d, %s", code, body)
		}
		return err
	})
	if code := proc.stop(); code != 0 {
		t.Errorf("code %d: %s", code, proc.text())
	}
}

// TestRunRefuses: what will not pass ends it at once.
func TestRunRefuses(t *testing.T) {
	t.Parallel()
	p := publish(t, "app")
	p.commit(t)
	notDir := file(t, "file", "")
	execute(t, "run", "--to", filepath.Join(notDir, "x"), "-s", p.url).want(t, 1, notDir)
	execute(t, "run", "--to", t.TempDir(), "-s", p.url, "--http=nowhere").want(t, 1, "nowhere")
	dir := t.TempDir()
	execute(t, "run", "--to", dir, "--to", "file://"+dir, "-s", p.url).want(t, 2, "twice")
}

// stopAt is an interrupt at the first word of a text that is printed.
type stopAt struct {
	word string
	stop func()
	strings.Builder
}

func (s *stopAt) Write(b []byte) (int, error) {
	if strings.Contains(string(b), s.word) {
		s.stop()
	}
	return s.Builder.Write(b)
}

// TestRestoreInterrupted: the same command goes on where it was.
func TestRestoreInterrupted(t *testing.T) {
	t.Parallel()
	m := newMade(t, history.Config{Seed: 14, MaxBlob: 100_000}, 40)
	m.first(t, 1, 40)
	out := filepath.Join(t.TempDir(), "out.db")
	args := []string{"restore", m.dir, dbName, out, "--no-stream", "--json", "--parallelism=1"}
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	errs := &stopAt{word: `"fetched"`, stop: func() { cancel(daemon.ErrInterrupted) }}
	if code := run(ctx, args, nil, io.Discard, errs); code != daemon.ExitInterrupted || !strings.Contains(errs.String(), "goes on there") {
		t.Fatalf("code %d: %s", code, errs)
	}
	if _, err := os.Stat(out); !errors.Is(err, os.ErrNotExist) {
		t.Fatal("an unfinished database has its name")
	}
	log := filepath.Join(filepath.Dir(out), ".out.db.restore-log")
	if b, err := os.ReadFile(log); err != nil || strings.Count(string(b), "\n") < 2 {
		t.Fatalf("nothing to go on from: %q, %v", b, err)
	}
	execute(t, args...).want(t, 0)
	if err := m.h.Check(out, 40); err != nil {
		t.Error(err)
	}
	alone(t, out)

	// Before anything is done.
	ctx, cancel = context.WithCancelCause(t.Context())
	cancel(daemon.ErrInterrupted)
	for _, args := range [][]string{{"ls", m.dir}, {"verify", m.dir, dbName}, {"restore", m.dir, dbName, filepath.Join(t.TempDir(), "x.db")}, {"prune", m.dir, dbName}} {
		executeUnder(ctx, args...).want(t, daemon.ExitInterrupted)
	}
}

// TestRestoreOverALiveDatabase: never, not even by force.
func TestRestoreOverALiveDatabase(t *testing.T) {
	t.Parallel()
	m := newMade(t, history.Config{Seed: 15}, 3)
	m.first(t, 1, 3)
	path := filepath.Join(t.TempDir(), "live.db")
	live := testenv.App(t, app.Config{Path: path, DB: sqlconn.WAL(), Rate: 10})
	if _, err := live.WaitFor(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	execute(t, "restore", m.dir, dbName, path, "--no-stream", "--force").want(t, 11, "has the database open", "stop the process")
}
