package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/superfly/ltx"
	"go.uber.org/goleak"

	"github.com/ltxstream/ltxstream/internal/control"
	"github.com/ltxstream/ltxstream/internal/daemon"
	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/wire"
)

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) {
	for _, name := range []string{"NATS_URL", "NATS_CONTEXT", "NATS_CREDS", "NATS_USER", "NATS_PASSWORD", "NATS_TOKEN", "LTX_CONFIG"} {
		os.Unsetenv(name)
	}
	goleak.VerifyTestMain(m)
}

var quiet = slog.New(slog.DiscardHandler)

// execute runs the command as main does, and returns what it printed.
func execute(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	defer time.AfterFunc(time.Minute, cancel).Stop() // ends what should have ended by itself; no deadline, main has none
	var out, errs strings.Builder
	code = run(ctx, args, strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

// serve runs a nats-server with JetStream unless change turns it off.
func serve(t *testing.T, change func(*server.Options)) string {
	t.Helper()
	opts := &server.Options{Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir()}
	if change != nil {
		change(opts)
	}
	s, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(time.Minute) {
		t.Fatal("server not ready")
	}
	return s.ClientURL()
}

func TestHelp(t *testing.T) {
	t.Setenv("COLUMNS", "100")
	for _, verb := range []string{"", "run", "status", "wait"} {
		name, args := "help.txt", []string{"--help"}
		if verb != "" {
			name, args = "help-"+verb+".txt", []string{verb, "--help"}
		}
		code, out, _ := execute(t, args...)
		golden := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(golden, []byte(out), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if code != 0 || out != string(want) {
			t.Errorf("%s: code %d, output differs from %s (-update writes it):\n%s", verb, code, golden, out)
		}
	}
}

func TestUsage(t *testing.T) {
	dir := t.TempDir()
	replica := filepath.Join(dir, "app.db")
	tests := map[string]struct {
		args []string
		code int
		text string
	}{
		"unknown flag":       {[]string{"--nope"}, 2, "--nope"},
		"no replica":         {nil, 2, "[NAME=]PATH"},
		"bad name":           {[]string{"a.b=" + replica}, 2, `"a.b"`},
		"path twice":         {[]string{replica, "other=" + replica}, 2, "twice"},
		"missing directory":  {[]string{filepath.Join(dir, "no", "app.db")}, 10, filepath.Join(dir, "no")},
		"bad size":           {[]string{replica, "--soft-wal-limit=much"}, 2, "much"},
		"wait without txid":  {[]string{"wait", "app"}, 2, "txid"},
		"wait for zero":      {[]string{"wait", "app", "--txid=0000000000000000"}, 2, "not zero"},
		"wait for nonsense":  {[]string{"wait", "app", "--txid=12"}, 2, "16 hex digits"},
		"wait with bad name": {[]string{"wait", "a.b", "--txid=0000000000000001"}, 2, `"a.b"`},
		"wait with bad id":   {[]string{"wait", "app", "--id=a.b", "--txid=0000000000000001"}, 2, `"a.b"`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			code, out, errs := execute(t, tt.args...)
			if code != tt.code || !strings.Contains(errs, tt.text) || out != "" {
				t.Errorf("code %d, stdout %q, stderr %q; want code %d and %q", code, out, errs, tt.code, tt.text)
			}
		})
	}
}

func TestBadNATS(t *testing.T) {
	replica := filepath.Join(t.TempDir(), "app.db")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free := l.Addr().String()
	l.Close()
	login := func(o *server.Options) { o.Username, o.Password = "u", "right" }

	tests := map[string]struct {
		server func(*server.Options)
		args   []string
		code   int
		text   string
	}{
		"absent":          {args: []string{replica, "-s", free}, code: 1, text: "nothing answers"},
		"no jetstream":    {server: func(o *server.Options) { o.JetStream = false }, args: []string{replica}, code: 1, text: "JetStream is not enabled"},
		"wrong password":  {server: login, args: []string{replica, "--user=u", "--password=wrong"}, code: 1, text: "refuses these credentials"},
		"nobody to ask":   {server: login, args: []string{"status", "--user=u", "--password=right"}, code: 10, text: "no ltx-sub answers"},
		"nobody serves":   {server: login, args: []string{"wait", "app", "--txid=0000000000000001", "--user=u", "--password=right"}, code: 10, text: `no ltx-sub serves database "app"`},
		"unknown replica": {server: login, args: []string{"wait", "app", "--id=r9", "--txid=0000000000000001", "--user=u", "--password=right"}, code: 10, text: `replica "r9"`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			args := append(tt.args, "--connect-wait=0s")
			if tt.server != nil {
				args = append(args, "-s", serve(t, tt.server))
			}
			code, out, errs := execute(t, args...)
			if code != tt.code || !strings.Contains(errs, tt.text) || !strings.Contains(errs, "hint: ") || out != "" {
				t.Errorf("code %d, stdout %q, stderr %q; want code %d, %q and a hint", code, out, errs, tt.code, tt.text)
			}
		})
	}
}

// replicaAt is at txid for good: a wait for more lasts until its deadline.
func replicaAt(db wire.DB, id string, txid ltx.TXID) control.Replica {
	return control.Replica{
		DB: db, ID: id,
		Status: func() any { return nil },
		Wait: func(ctx context.Context, want ltx.TXID) (ltx.Pos, error) {
			if want > txid {
				<-ctx.Done()
				return ltx.Pos{}, ctx.Err()
			}
			return ltx.NewPos(txid, ltx.ChecksumFlag), nil
		},
	}
}

func TestWaitCommand(t *testing.T) {
	url := serve(t, nil)
	nc, err := nats.Connect(url, nats.Timeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	svc, err := control.ServeReplicas(t.Context(), nc, control.Config{Version: daemon.Version, Logger: quiet},
		[]control.Replica{replicaAt("app", "r1", 9), replicaAt("app", "r2", 5)})
	if err != nil {
		t.Fatal(err)
	}
	defer svc.Close()

	testenv.Again(t, func() error {
		code, out, errs := execute(t, "wait", "app", "--txid=0000000000000005", "-s", url)
		if code != 0 || !strings.Contains(out, "r1 0000000000000009\n") || !strings.Contains(out, "r2 0000000000000005\n") {
			return fmt.Errorf("all: code %d, stdout %q, stderr %q", code, out, errs)
		}
		return nil
	})
	code, out, errs := execute(t, "wait", "app", "--txid=0000000000000009", "--id=r1", "--json", "-s", url)
	var reached []control.Reached
	if err := json.Unmarshal([]byte(out), &reached); code != 0 || err != nil || len(reached) != 1 || reached[0].ID != "r1" {
		t.Errorf("one: code %d, stdout %q, stderr %q", code, out, errs)
	}
	testenv.Again(t, func() error {
		code, out, errs := execute(t, "wait", "app", "--txid=0000000000000009", "--timeout=200ms", "-s", url)
		if code != 20 || !strings.Contains(errs, "r2") || !strings.Contains(out, "r1") {
			return fmt.Errorf("lagging: code %d, stdout %q, stderr %q", code, out, errs)
		}
		return nil
	})
}

func TestInterrupt(t *testing.T) {
	url := serve(t, nil)
	nc, err := nats.Connect(url, nats.Timeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	asked := make(chan struct{}, 1)
	r := replicaAt("app", "r1", 1)
	at := r.Wait
	r.Wait = func(ctx context.Context, txid ltx.TXID) (ltx.Pos, error) { asked <- struct{}{}; return at(ctx, txid) }
	svc, err := control.ServeReplicas(t.Context(), nc, control.Config{Version: daemon.Version, Logger: quiet}, []control.Replica{r})
	if err != nil {
		t.Fatal(err)
	}
	defer svc.Close()

	for name, args := range map[string][]string{
		"waiting":    {"wait", "app", "--txid=0000000000000002", "--timeout=1m", "-s", url},
		"connecting": {"status", "-s", "127.0.0.1:1", "--connect-wait=1m"},
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		done := make(chan int, 1)
		go func() { done <- run(ctx, args, nil, io.Discard, io.Discard) }()
		if name == "waiting" {
			<-asked
		}
		cancel(daemon.ErrInterrupted)
		if code := <-done; code != daemon.ExitInterrupted {
			t.Errorf("%s: code %d", name, code)
		}
	}
}

func TestReplicaID(t *testing.T) {
	for host, want := range map[string]string{"db1.example.org": "db1-", "web server": "web-server-", "": "-", strings.Repeat("x", 99): strings.Repeat("x", 40) + "-"} {
		id := idFor(host, "/a.db")
		if _, err := wire.ParseDB(id); err != nil || !strings.HasPrefix(id, want) {
			t.Errorf("%q gives %q, %v", host, id, err)
		}
	}
	if idFor("h", "/a.db") == idFor("h", "/b.db") {
		t.Error("two files have one id")
	}
}
