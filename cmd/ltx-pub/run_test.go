package main

import (
	"context"
	"database/sql"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/mattn/go-sqlite3"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/ltxstream/ltxstream/internal/daemon"
	"github.com/ltxstream/ltxstream/publisher"
)

// childEnv makes this test binary an application that writes one row: the
// publisher under test must be the only one of its process on a database.
const childEnv = "LTX_PUB_TEST_WRITE"

func writeRow(path string) error {
	db, err := sql.Open("sqlite3", "file:"+path+"?_journal_mode=WAL&_busy_timeout=5000")
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = db.Exec("CREATE TABLE IF NOT EXISTS t(a); INSERT INTO t VALUES (randomblob(100))")
	return err
}

func childWrites(path string) int {
	if err := writeRow(path); err != nil {
		_, _ = io.WriteString(os.Stderr, err.Error())
		return 1
	}
	return 0
}

func write(t *testing.T, path string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+path, "GORACE=atexit_sleep_ms=0") // it waits a second at every exit
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("write %s: %v: %s", path, err, out)
	}
}

func database(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	write(t, path)
	return path
}

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

// stop ends it as a signal does and returns its exit code.
func (p *process) stop() int { p.cancel(); return <-p.done }

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func waitFor(t *testing.T, p *process, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !cond(); <-time.After(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("condition not met; log:\n%s", p.text())
		}
	}
}

func TestRunEmbedded(t *testing.T) {
	db, url, web := database(t, "app.db"), freePort(t), freePort(t)
	p := background(t, db, "--embedded-listen", url, "--http", web)
	waitFor(t, p, func() bool { code, _, _ := execute(t, "sync", "app", "-s", url, "--connect-wait=0s"); return code == 0 })

	_, before, _ := execute(t, "sync", "app", "-s", url)
	write(t, db)
	code, after, errs := execute(t, "sync", "app", "-s", url)
	if code != 0 || after <= before {
		t.Errorf("sync after a commit: code %d, %q after %q: %s", code, after, before, errs)
	}
	code, table, errs := execute(t, "status", "-s", url)
	if code != 0 || !strings.Contains(table, "publishing") || !strings.Contains(table, strings.TrimSpace(after)) {
		t.Errorf("status: code %d, %s%s", code, table, errs)
	}
	for path, want := range map[string]string{
		"/readyz?max_lag=10s": `"ready": true`, "/status": `"db": "app"`, "/metrics": `ltx_pub_captured_txid{db="app"}`, "/healthz": "ok",
	} {
		if body := get(t, "http://"+web+path); !strings.Contains(body, want) {
			t.Errorf("%s lacks %s: %s", path, want, body)
		}
	}
	if code, _, errs := execute(t, db, "-s", url); code != daemon.ExitFenced {
		t.Errorf("a second publisher: code %d, %s", code, errs)
	}
	if code := p.stop(); code != 0 {
		t.Errorf("stopped with code %d; log:\n%s", code, p.text())
	}
	if !strings.Contains(p.text(), "no --server given") {
		t.Errorf("it does not say that NATS runs in the process:\n%s", p.text())
	}
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

func TestStateDirsAgree(t *testing.T) {
	if got, want := (daemon.Target{DB: "app", Path: "/x/app.db"}).StateDir(), publisher.StateDir("/x/app.db"); got != want {
		t.Errorf("state directory %s here, %s in the library", got, want)
	}
}

func TestRefusedDatabases(t *testing.T) {
	url := serve(t, nil)
	garbage := file(t, "app.db", strings.Repeat("not a database ", 1000))
	if code, _, errs := execute(t, garbage, "-s", url); code != 1 || !strings.Contains(errs, "app.db") {
		t.Errorf("garbage: code %d, %s", code, errs)
	}
}

func TestDivergedDatabase(t *testing.T) {
	url := serve(t, nil)
	publishOnce(t, url, database(t, "app.db"))

	other := database(t, "app.db")
	write(t, other)
	code, _, errs := execute(t, other, "-s", url)
	if code != daemon.ExitGap || !strings.Contains(errs, "--force-reseed") || !strings.Contains(errs, other) {
		t.Errorf("code %d, %s", code, errs)
	}
	publishOnce(t, url, other, "--force-reseed")
	publishOnce(t, url, other)
}

// publishOnce runs a publisher until everything is acknowledged.
func publishOnce(t *testing.T, url string, args ...string) {
	t.Helper()
	p := background(t, append(args, "-s", url)...)
	waitFor(t, p, func() bool {
		if len(p.done) > 0 {
			t.Fatalf("it ended with code %d; log:\n%s", <-p.done, p.text())
		}
		code, _, _ := execute(t, "sync", "app", "-s", url)
		return code == 0
	})
	if code := p.stop(); code != 0 {
		t.Fatalf("stopped with code %d; log:\n%s", code, p.text())
	}
}

func TestLossyStream(t *testing.T) {
	url := serve(t, nil)
	nc, err := nats.Connect(url, nats.Timeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "LTX", Subjects: []string{"ltx.>"}, MaxMsgs: 10})
	if err != nil {
		t.Fatal(err)
	}
	db := database(t, "app.db")
	if code, _, errs := execute(t, db, "-s", url); code != 1 || !strings.Contains(errs, "--accept-lossy-stream") {
		t.Errorf("code %d, %s", code, errs)
	}
	publishOnce(t, url, db, "--accept-lossy-stream")
}

func TestMissingPermission(t *testing.T) {
	perms := &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"ltx.>"}}}
	url := serve(t, user(perms))
	code, _, errs := execute(t, database(t, "app.db"), "-s", url, "--user=u", "--password=right")
	if code != 1 || !strings.Contains(errs, "ermission") || !strings.Contains(errs, "ltx.app") {
		t.Errorf("code %d, %s", code, errs)
	}
}
