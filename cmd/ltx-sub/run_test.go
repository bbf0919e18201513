package main

import (
	"context"
	"database/sql"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/mattn/go-sqlite3"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/archiver"
	"github.com/ltxstream/ltxstream/internal/daemon"
	"github.com/ltxstream/ltxstream/objstore/open"
	"github.com/ltxstream/ltxstream/publisher"
	"github.com/ltxstream/ltxstream/replica"
)

// process is a running command.
type process struct {
	cancel context.CancelFunc
	done   chan int
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

func background(t *testing.T, args ...string) *process {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	p := &process{cancel: cancel, done: make(chan int, 1)}
	go func() { p.done <- run(ctx, args, strings.NewReader(""), io.Discard, p) }()
	t.Cleanup(func() { cancel() })
	return p
}

// primary is a published database of the test's own process.
type primary struct {
	db  *sql.DB
	pub *publisher.Publisher
}

func publish(t *testing.T, url string) *primary {
	t.Helper()
	path := filepath.Join(t.TempDir(), "app.db")
	db, err := sql.Open("sqlite3", "file:"+path+"?_journal_mode=WAL&_busy_timeout=5000")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	p := &primary{db: db}
	p.exec(t, "CREATE TABLE t(a)")
	nc, err := nats.Connect(url, nats.Timeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if p.pub, err = publisher.New(publisher.Config{JS: js, DB: "app", Path: path, Logger: quiet}); err != nil {
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

func (p *primary) exec(t *testing.T, text string) {
	t.Helper()
	if _, err := p.db.Exec(text); err != nil {
		t.Fatal(err)
	}
}

func (p *primary) sync(t *testing.T) ltx.TXID {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	pos, err := p.pub.Sync(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return pos.TXID
}

func TestRunReplicates(t *testing.T) {
	url := serve(t, nil)
	primary := publish(t, url)
	file := filepath.Join(t.TempDir(), "replica.db")
	web := freePort(t)
	p := background(t, "app="+file, "-s", url, "--http", web)

	primary.exec(t, "INSERT INTO t VALUES (1), (2), (3)")
	txid := primary.sync(t).String()
	waitFor(t, p, func() bool { // until it serves the name at all
		code, _, _ := execute(t, "wait", "app", "--txid", txid, "-s", url)
		return code == 0
	})
	code, table, errs := execute(t, "status", "app", "-s", url)
	if code != 0 || !strings.Contains(table, "live") || !strings.Contains(table, txid) || !strings.Contains(table, replicaID(file)) {
		t.Errorf("status: code %d, %s%s", code, table, errs)
	}
	if code, out, errs := execute(t, "wait", "app", "--txid", txid, "--id", replicaID(file), "-s", url); code != 0 || !strings.Contains(out, txid) {
		t.Errorf("wait on the replica: code %d, %s%s", code, out, errs)
	}
	for path, want := range map[string]string{
		"/readyz?max_lag=10s": `"ready": true`, "/status": `"state": "live"`, "/metrics": `db="app"`, "/healthz": "ok",
	} {
		if body := get(t, "http://"+web+path); !strings.Contains(body, want) {
			t.Errorf("%s lacks %s: %s", path, want, body)
		}
	}
	if code, _, errs := execute(t, "app="+file, "-s", url); code != daemon.ExitFenced {
		t.Errorf("a second subscriber: code %d, %s", code, errs)
	}
	if code := p.stop(); code != 0 {
		t.Fatalf("stopped with code %d; log:\n%s", code, p.text())
	}
	if n := count(t, file); n != 3 {
		t.Errorf("the replica holds %d rows, want 3", n)
	}
}

func TestBadArchive(t *testing.T) {
	url := serve(t, nil)
	replica := filepath.Join(t.TempDir(), "app.db")
	for archive, text := range map[string]string{
		"ftp://host/x": `"ftp"`, "file://host/x": "third slash", "file:///x?crate=true": `"crate"`, "gs://A_B/x": "bucket", "nats://bucket/x?region=eu": `"region"`,
	} {
		code, out, errs := execute(t, "app="+replica, "--archive", archive, "-s", url)
		if code != 2 || !strings.Contains(errs, text) || !strings.Contains(errs, "nothing was done") || out != "" {
			t.Errorf("%s: code %d, stdout %q, stderr %q", archive, code, out, errs)
		}
	}
	if left, _ := os.ReadDir(filepath.Dir(replica)); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// archived puts all that is published so far into a directory, and trims it from
// the stream but for the newest.
func archived(t *testing.T, url string, txid ltx.TXID) (dirURL string) {
	t.Helper()
	nc, err := nats.Connect(url, nats.Timeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	dirURL = "file://" + filepath.Join(t.TempDir(), "archive")
	to, err := open.Archive(t.Context(), dirURL, open.Options{Write: true})
	if err != nil {
		t.Fatal(err)
	}
	defer to.Store().Close()
	a, err := archiver.New(archiver.Config{
		JS: js, Destinations: []archiver.Destination{{Name: "dir", Archive: to}}, StageDir: t.TempDir(),
		FlushInterval: 50 * time.Millisecond, TrimAfter: 100 * time.Millisecond, Logger: quiet,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	str, err := js.Stream(t.Context(), "LTX")
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; <-time.After(10 * time.Millisecond) {
		info, err := str.Info(t.Context(), jetstream.WithSubjectFilter("ltx.app.0"))
		if err != nil {
			t.Fatal(err)
		}
		if s := a.Status(); len(s) == 1 && s[0].Archived >= txid && info.State.Subjects["ltx.app.0"] == 1 {
			return dirURL
		}
		if time.Now().After(deadline) {
			t.Fatalf("not archived and trimmed: %+v, %+v", a.Status(), info.State)
		}
	}
}

// TestRunFromArchive: a new replica begins from a directory where the stream does
// not reach back far enough; without the archive it waits, and says so.
func TestRunFromArchive(t *testing.T) {
	url := serve(t, nil)
	primary := publish(t, url)
	for range 5 {
		primary.exec(t, "INSERT INTO t VALUES (1), (2)")
		primary.sync(t)
	}
	from := archived(t, url, primary.sync(t))

	web := freePort(t)
	without := background(t, "app="+filepath.Join(t.TempDir(), "replica.db"), "-s", url, "--http", web)
	waitFor(t, without, func() bool { return strings.Contains(without.text(), "full file") })
	if body := get(t, "http://"+web+"/readyz"); !strings.Contains(body, `"ready": false`) {
		t.Errorf("ready without a base: %s", body)
	}
	if code := without.stop(); code != 0 {
		t.Errorf("stopped with code %d; log:\n%s", code, without.text())
	}

	file := filepath.Join(t.TempDir(), "replica.db")
	p := background(t, "app="+file, "-s", url, "--archive", from)
	primary.exec(t, "INSERT INTO t VALUES (3)")
	txid := primary.sync(t).String()
	waitFor(t, p, func() bool {
		code, _, _ := execute(t, "wait", "app", "--txid", txid, "-s", url)
		return code == 0
	})
	if code := p.stop(); code != 0 {
		t.Fatalf("stopped with code %d; log:\n%s", code, p.text())
	}
	if n := count(t, file); n != 11 {
		t.Errorf("the replica holds %d rows, want 11", n)
	}
	if !strings.Contains(p.text(), "base made from the archive") {
		t.Errorf("where it began is not logged:\n%s", p.text())
	}
}

func TestMissingPermission(t *testing.T) {
	deny := &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"$JS.API.STREAM.INFO.>"}}}
	url := serve(t, func(o *server.Options) {
		o.Users = []*server.User{{Username: "u", Password: "right", Permissions: deny}}
	})
	file := filepath.Join(t.TempDir(), "app.db")
	code, _, errs := execute(t, file, "-s", url, "--user=u", "--password=right")
	if code != 1 || !strings.Contains(errs, "ermission") || !strings.Contains(errs, "$JS.API.STREAM.INFO.LTX") {
		t.Errorf("code %d, %s", code, errs)
	}
}

func TestStateDirsAgree(t *testing.T) {
	if got, want := (daemon.Target{DB: "app", Path: "/x/app.db"}).StateDir(), replica.StateDirOf("/x/app.db"); got != want {
		t.Errorf("state directory %s here, %s in the library", got, want)
	}
}

// stop ends it as a signal does and returns its exit code.
func (p *process) stop() int { p.cancel(); return <-p.done }

func waitFor(t *testing.T, p *process, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !cond(); <-time.After(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("condition not met; log:\n%s", p.text())
		}
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func get(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func count(t *testing.T, file string) (n int) {
	t.Helper()
	db, err := sql.Open("sqlite3", "file:"+file)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRow("SELECT count(*) FROM t").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
