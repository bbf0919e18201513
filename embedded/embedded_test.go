package embedded_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/ltxstream/ltxstream/embedded"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		os.Exit(childPublish(dir))
	}
	goleak.VerifyTestMain(m)
}

// logs is a log destination that tests read.
type logs struct {
	mu  sync.Mutex
	buf strings.Builder
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func start(t *testing.T, cfg embedded.Config) *embedded.Server {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s, err := embedded.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Shutdown(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func connect(t *testing.T, s *embedded.Server) (*nats.Conn, jetstream.JetStream) {
	t.Helper()
	nc, err := s.Connect(nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return nc, js
}

func addStream(ctx context.Context, js jetstream.JetStream) (jetstream.Stream, error) {
	return js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{Name: "T", Subjects: []string{"t.>"}})
}

func TestConfigReportsAllFaults(t *testing.T) {
	_, err := embedded.New(embedded.Config{Listen: "nonsense", SyncInterval: -1, MaxStore: -1, MaxPayload: -1})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"Dir", "nonsense", "SyncInterval", "MaxStore", "MaxPayload"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error does not name %s: %v", want, err)
		}
	}
}

func TestStoreSurvivesRestart(t *testing.T) {
	dir := t.TempDir()
	s := start(t, embedded.Config{Dir: dir})
	nc, js := connect(t, s)
	if _, err := addStream(t.Context(), js); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "t.1", []byte("hello")); err != nil {
		t.Fatal(err)
	}
	nc.Close()
	if err := s.Shutdown(); err != nil {
		t.Fatal(err)
	}

	_, js = connect(t, start(t, embedded.Config{Dir: dir}))
	st, err := js.Stream(t.Context(), "T")
	if err != nil {
		t.Fatal(err)
	}
	msg, err := st.GetMsg(t.Context(), 1)
	if err != nil || string(msg.Data) != "hello" {
		t.Fatalf("message %v, %v", msg, err)
	}
}

func TestLimits(t *testing.T) {
	s := start(t, embedded.Config{Dir: t.TempDir(), MaxStore: 1 << 20})
	nc, js := connect(t, s)
	if got := nc.MaxPayload(); got != embedded.DefaultMaxPayload {
		t.Errorf("max payload %d, want %d", got, embedded.DefaultMaxPayload)
	}
	if _, err := addStream(t.Context(), js); err != nil {
		t.Fatal(err)
	}
	var err error
	for range 8 {
		if _, err = js.Publish(t.Context(), "t.1", make([]byte, 256<<10)); err != nil {
			break
		}
	}
	if err == nil {
		t.Error("2 MB went into a store of 1 MB")
	}
}

func TestListener(t *testing.T) {
	s := start(t, embedded.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	nc, err := nats.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()

	t.Run("same port again", func(t *testing.T) {
		second, err := embedded.New(embedded.Config{Dir: t.TempDir(), Listen: strings.TrimPrefix(s.ClientURL(), "nats://")})
		if err != nil {
			t.Fatal(err)
		}
		err = second.Start(t.Context())
		if !errors.Is(err, embedded.ErrListen) || !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatalf("error %v, want ErrListen and EADDRINUSE", err)
		}
	})
}

func TestNoListener(t *testing.T) {
	s := start(t, embedded.Config{Dir: t.TempDir()})
	if u := s.ClientURL(); u != "" {
		t.Errorf("ClientURL %q without a listener", u)
	}
}

func TestOpenListenerIsLogged(t *testing.T) {
	for listen, want := range map[string]bool{"127.0.0.1:0": false, "0.0.0.0:0": true} {
		var out logs
		// 0.0.0.0 includes the loopback interface, nothing connects here.
		start(t, embedded.Config{Dir: t.TempDir(), Listen: listen, Logger: slog.New(slog.NewTextHandler(&out, nil))})
		if got := strings.Contains(out.String(), "without authentication"); got != want {
			t.Errorf("%s: warned %v, want %v: %s", listen, got, want, out.String())
		}
	}
}

func TestSecondServerOnDirIsRefused(t *testing.T) {
	dir := t.TempDir()
	start(t, embedded.Config{Dir: dir})
	second, err := embedded.New(embedded.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	err = second.Start(t.Context())
	locked, ok := errors.AsType[*embedded.LockedError](err)
	if !ok || !errors.Is(err, embedded.ErrLocked) {
		t.Fatalf("error %v, want a LockedError", err)
	}
	if locked.PID != os.Getpid() || locked.Dir != dir {
		t.Errorf("error names %q, pid %d", locked.Dir, locked.PID)
	}
	if _, err := second.Connect(); !errors.Is(err, embedded.ErrNotRunning) {
		t.Errorf("Connect: %v, want ErrNotRunning", err)
	}
}

func TestRunEndsWithContext(t *testing.T) {
	s, err := embedded.New(embedded.Config{Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var nc *nats.Conn
	waitFor(t, func() bool { nc, err = s.Connect(); return err == nil })
	nc.Close()
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := s.InProcessConn(); !errors.Is(err, embedded.ErrNotRunning) {
		t.Errorf("after Run: %v, want ErrNotRunning", err)
	}
}

func TestEndedContextStartsNothing(t *testing.T) {
	dir := t.TempDir()
	s, err := embedded.New(embedded.Config{Dir: dir + "/sub"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Start(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("Start: %v", err)
	}
	if _, err := os.Stat(dir + "/sub"); err == nil {
		t.Error("the directory was made")
	}
}

func TestUnusableDir(t *testing.T) {
	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := embedded.New(embedded.Config{Dir: file})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err == nil || !strings.Contains(err.Error(), file) {
		t.Fatalf("error %v does not name the directory", err)
	}
}

func waitFor(t *testing.T, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatal("condition not met in a minute")
		}
		<-time.After(5 * time.Millisecond)
	}
}
