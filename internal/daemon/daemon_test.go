package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(execEnv) != "" {
		os.Exit(Main(runExec))
	}
	goleak.VerifyTestMain(m)
}

type hinted struct{ error }

func (hinted) Hint() string  { return "do this" }
func (hinted) ExitCode() int { return ExitGap }

func TestReport(t *testing.T) {
	base := errors.New("open x")
	tests := map[string]struct {
		err  error
		code int
		out  string
	}{
		"nil":             {nil, 0, ""},
		"plain":           {base, 1, "cmd: open x\n"},
		"exit error":      {Exit(ExitFenced, base, "stop it"), 11, "cmd: open x\ncmd: hint: stop it\n"},
		"wrapped":         {fmt.Errorf("db app: %w", Exit(ExitNotFound, base, "")), 10, "cmd: db app: open x\n"},
		"own methods":     {hinted{base}, 22, "cmd: open x\ncmd: hint: do this\n"},
		"interrupt":       {fmt.Errorf("wait: %w", ErrInterrupted), 130, "cmd: wait: interrupted\n"},
		"cancelled":       {context.Canceled, 130, "cmd: context canceled\n"},
		"code of a joint": {errors.Join(base, Exit(ExitLag, base, "")), 20, "cmd: open x\nopen x\n"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			if got := Report(&out, "cmd", tt.err); got != tt.code || out.String() != tt.out {
				t.Errorf("code %d, output %q; want %d, %q", got, out.String(), tt.code, tt.out)
			}
		})
	}
	if Exit(1, nil, "x") != nil {
		t.Error("Exit of no error is an error")
	}
}

// Not parallel: signals belong to the process.
func TestSignals(t *testing.T) {
	exited := make(chan int, 1)
	ctx, stop := Signals(t.Context(), func(code int) { exited <- code })
	defer stop()
	kill := func() {
		if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	kill()
	<-ctx.Done()
	if !errors.Is(context.Cause(ctx), ErrInterrupted) {
		t.Errorf("cause %v", context.Cause(ctx))
	}
	select {
	case code := <-exited:
		t.Fatalf("the first signal exits with %d", code)
	default:
	}
	kill()
	if code := <-exited; code != 130 {
		t.Errorf("the second signal exits with %d", code)
	}
}

func TestLogger(t *testing.T) {
	var out strings.Builder
	logger, err := LogFlags{Level: "warn", Format: "json"}.Logger(&out)
	if err != nil {
		t.Fatal(err)
	}
	logger.Info("hidden")
	logger.Warn("shown", "db", "app")
	var line map[string]any
	if err := json.Unmarshal([]byte(out.String()), &line); err != nil || line["msg"] != "shown" || line["db"] != "app" {
		t.Errorf("log %q, %v", out.String(), err)
	}
	if _, err := (LogFlags{Level: "loud"}).Logger(&out); err == nil {
		t.Error("an unknown level is accepted")
	}
}

func TestLimitRepeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		logger := slog.New(LimitRepeats(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: dropTime}), time.Second))
		app := logger.With("db", "app")
		for range 5 {
			app.Warn("nats away")
		}
		logger.Warn("nats away", "db", "other")
		app.Info("state")
		app.Info("state")
		app.Error("nats away")
		time.Sleep(time.Second)
		app.Warn("nats away")
		app.Warn("nats away")
		want := `level=WARN msg="nats away" db=app
level=WARN msg="nats away" db=other
level=INFO msg=state db=app
level=INFO msg=state db=app
level=ERROR msg="nats away" db=app
level=WARN msg="nats away" db=app repeated=4
`
		if out.String() != want {
			t.Errorf("log\n%s\nwant\n%s", out.String(), want)
		}
	})
}

func TestLimitRepeatsIsBounded(t *testing.T) {
	s := &repeats{interval: time.Hour, last: map[repeatKey]repeat{}}
	for i := range 3 * maxRepeatKeys {
		s.pass(repeatKey{db: fmt.Sprint(i)}, time.Unix(0, 0))
	}
	if len(s.last) > maxRepeatKeys {
		t.Errorf("%d keys remembered", len(s.last))
	}
}

func dropTime(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

// fakeRole is ready up to its lag.
type fakeRole struct {
	name string
	lag  time.Duration
	err  error
}

func (r fakeRole) Name() string { return r.name }
func (r fakeRole) Status() any  { return map[string]any{"db": r.name, "lag": r.lag.Seconds()} }
func (r fakeRole) Ready(maxLag time.Duration) error {
	if maxLag > 0 && r.lag > maxLag {
		return fmt.Errorf("lag %v is over %v", r.lag, maxLag)
	}
	return r.err
}

func TestHTTP(t *testing.T) {
	reg := NewRegistry()
	counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "ltx_test_total"})
	reg.MustRegister(counter)
	fine := fakeRole{name: "fine"}
	slow := fakeRole{name: "slow", lag: 3 * time.Second}
	alarm := fakeRole{name: "full", err: errors.New("the spool is full")}
	tests := []struct {
		path  string
		roles []Role
		code  int
		text  []string
	}{
		{"/healthz", []Role{alarm}, 200, []string{"ok"}},
		{"/readyz", []Role{fine, slow}, 200, []string{`"ready": true`}},
		{"/readyz?max_lag=2s", []Role{fine, slow}, 503, []string{`"ready": false`, "slow", "lag 3s is over 2s"}},
		{"/readyz?max_lag=5s", []Role{fine, slow}, 200, []string{`"ready": true`}},
		{"/readyz", []Role{alarm, fine}, 503, []string{"full", "the spool is full"}},
		{"/readyz?max_lag=soon", []Role{fine}, 400, []string{"soon"}},
		{"/readyz?max_lag=-1s", []Role{fine}, 400, []string{"positive"}},
		{"/status", []Role{fine, slow}, 200, []string{`"db": "fine"`, `"lag": 3`}},
		{"/status", nil, 200, []string{"[]"}},
		{"/metrics", nil, 200, []string{"ltx_test_total 0", "go_goroutines", "process_open_fds"}},
		{"/other", nil, 404, nil},
	}
	for _, tt := range tests {
		t.Run(tt.path, func(t *testing.T) {
			s := &HTTPServer{cfg: HTTPConfig{Roles: tt.roles, Registry: reg, Logger: slog.New(slog.DiscardHandler)}}
			rec := httptest.NewRecorder()
			s.Handler().ServeHTTP(rec, httptest.NewRequest("GET", tt.path, nil))
			if rec.Code != tt.code {
				t.Errorf("code %d, want %d", rec.Code, tt.code)
			}
			for _, want := range tt.text {
				if !strings.Contains(rec.Body.String(), want) {
					t.Errorf("body lacks %q: %s", want, rec.Body)
				}
			}
		})
	}
}

func TestHTTPRun(t *testing.T) {
	s, err := ListenHTTP(HTTPConfig{Addr: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ListenHTTP(HTTPConfig{Addr: s.Addr()}); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("second listener: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	resp, err := http.Get("http://" + s.Addr() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if string(body) != "ok\n" {
		t.Errorf("body %q", body)
	}
	http.DefaultClient.CloseIdleConnections()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

type testCLI struct {
	Config string        `name:"config"`
	Name   string        `name:"name" env:"LTX_TEST_NAME" default:"none"`
	Count  int           `name:"count"`
	On     bool          `name:"on"`
	Wait   time.Duration `name:"wait"`
	Tags   []string      `name:"tags"`
	Need   string        `name:"need"`
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestParseConfig(t *testing.T) {
	t.Setenv("LTX_TEST_COUNT", "7")
	path := write(t, `
# all kinds of values
name: from-file
count: ${LTX_TEST_COUNT}
on: true
wait: 1m
tags: [a, "$${b}"]
databases: [app=/x/app.db]
`)
	var cli testCLI
	p, err := Parse(&cli, []string{"--config", path, "--wait=2s"}, io.Discard, io.Discard, []string{"databases"})
	if err != nil {
		t.Fatal(err)
	}
	want := testCLI{Config: path, Name: "from-file", Count: 7, On: true, Wait: 2 * time.Second, Tags: []string{"a", "${b}"}}
	if fmt.Sprint(cli) != fmt.Sprint(want) {
		t.Errorf("parsed %+v, want %+v", cli, want)
	}
	if dbs, err := p.Config.Strings("databases"); err != nil || len(dbs) != 1 || dbs[0] != "app=/x/app.db" {
		t.Errorf("databases %v, %v", dbs, err)
	}

	t.Setenv("LTX_TEST_NAME", "from-env")
	if _, err := Parse(&cli, []string{"--config", path}, io.Discard, io.Discard, []string{"databases"}); err != nil || cli.Name != "from-env" {
		t.Errorf("name %q, %v; the environment wins over the file", cli.Name, err)
	}
}

func TestParseFaults(t *testing.T) {
	tests := map[string]struct{ config, text string }{
		"unknown keys":   {"nmae: x\ncuont: 1\n", "unknown keys: cuont, nmae"},
		"unset variable": {"name: ${LTX_TEST_NOT_SET}\n", "LTX_TEST_NOT_SET"},
		"wrong type":     {"count: many\n", "count"},
		"nested":         {"name: {a: 1}\n", "single value"},
		"no YAML":        {"name: [\n", "config"},
		"no map":         {"- a\n", "config"},
		"twice":          {"name: a\nname: b\n", "name"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Parse(&testCLI{}, []string{"--config", write(t, tt.config)}, io.Discard, io.Discard, nil)
			if Code(err) != ExitUsage || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error %v (code %d), want %q", err, Code(err), tt.text)
			}
		})
	}
	for _, args := range [][]string{{"--nope"}, {"stray"}, {"--count=x"}, {"--config=/no/such/file"}} {
		if _, err := Parse(&testCLI{}, args, io.Discard, io.Discard, nil); Code(err) != ExitUsage {
			t.Errorf("%v: %v (code %d)", args, err, Code(err))
		}
	}
	var out strings.Builder
	if _, err := Parse(&testCLI{}, []string{"--help"}, &out, io.Discard, nil); !errors.Is(err, ErrHelped) || !strings.Contains(out.String(), "--count") {
		t.Errorf("help: %v, %s", err, out.String())
	}
}

func TestConfigStrings(t *testing.T) {
	for text, fault := range map[string]bool{"l: [a, b]": false, "x: 1": false, "": false, "l: a": true, "l: [1]": true} {
		c, err := parseConfig(strings.NewReader(text), os.LookupEnv)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Strings("l"); (err != nil) != fault {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add("name: ${X}\nlist: [a, $${b}]\nn: {m: 1}\n")
	f.Add("- a")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parseConfig(strings.NewReader(text), func(s string) (string, bool) { return "v", s != "unset" })
		if (c == nil) == (err == nil) {
			t.Errorf("config %v, error %v", c, err)
		}
	})
}
