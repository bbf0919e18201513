package main

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// TestSpoolFullAlarm: with NATS away and the spool at its limit, /readyz says
// so with 503, /metrics shows it, the log has it, once; and all of it ends when
// NATS is back.
func TestSpoolFullAlarm(t *testing.T) {
	store, web := t.TempDir(), freePort(t)
	addr := freePort(t)
	begin := func() *server.Server {
		return serveAt(t, addr, store)
	}
	srv := begin()
	db := database(t, "app.db")
	p := background(t, db, "-s", "nats://"+addr, "--http", web, "--spool-limit", "2KB", "--soft-wal-limit", "4KB")
	waitFor(t, p, func() bool { code, _ := fetch(t, "http://"+web+"/readyz"); return code == http.StatusOK })
	if got := get(t, "http://"+web+"/metrics"); !strings.Contains(got, `ltx_pub_up{db="app"} 1`) {
		t.Errorf("it is not up:\n%s", got)
	}
	srv.Shutdown()
	srv.WaitForShutdown()
	waitFor(t, p, func() bool {
		write(t, db)
		return strings.Contains(p.text(), "spool is full")
	})
	for range 5 {
		write(t, db) // the application goes on
	}
	code, body := fetch(t, "http://"+web+"/readyz")
	if code != http.StatusServiceUnavailable || !strings.Contains(body, "app") || !strings.Contains(body, "reason") {
		t.Errorf("/readyz: %d %s", code, body)
	}
	metrics := get(t, "http://"+web+"/metrics")
	for _, want := range []string{`ltx_pub_up{db="app"} 0`, `ltx_pub_spool_bytes{db="app"}`, `ltx_pub_errors_total{db="app",kind="capture"}`, `ltx_pub_lag_seconds{db="app"}`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
	if n := strings.Count(p.text(), "spool is full"); n > 3 {
		t.Errorf("the log says it %d times", n)
	}
	if code, _ := fetch(t, "http://"+web+"/healthz"); code != http.StatusOK {
		t.Errorf("/healthz: %d; a restart would not help", code)
	}
	begin()
	waitFor(t, p, func() bool { code, _ := fetch(t, "http://"+web+"/readyz?max_lag=1s"); return code == http.StatusOK })
	if code, _, errs := execute(t, "sync", "app", "-s", "nats://"+addr); code != 0 {
		t.Errorf("sync: %d %s", code, errs)
	}
	if code := p.stop(); code != 0 {
		t.Errorf("stopped with %d", code)
	}
}

// serveAt is serve at an address of the test's, on a store that is kept.
func serveAt(t *testing.T, addr, store string) *server.Server {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: a.Port, NoSigs: true, NoLog: true, JetStream: true, StoreDir: store})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(time.Minute) {
		t.Fatal("server not ready")
	}
	return s
}

// fetch is get with the status code, 0 while nobody listens.
func fetch(t *testing.T, url string) (code int, body string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}
