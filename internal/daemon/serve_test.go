package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"
)

func TestServe(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	cfg := ServeConfig{
		Runners:  []Runner{fakeRunner{fakeRole: fakeRole{name: "a"}}},
		HTTPAddr: addr,
		Registry: NewRegistry(),
		Logger:   slog.New(slog.DiscardHandler),
	}
	if err := Serve(t.Context(), cfg); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("address in use: %v", err)
	}
	l.Close()

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, cfg) }()
	for deadline := time.Now().Add(time.Minute); ; <-time.After(time.Millisecond) {
		resp, err := http.Get("http://" + addr + "/readyz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				break
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("not ready: %v", err)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// The HTTP server must not outlive the roles.
func TestServeEndsWithTheRoles(t *testing.T) {
	cfg := ServeConfig{
		Runners:  []Runner{fakeRunner{fakeRole: fakeRole{name: "a"}, fail: Exit(ExitFenced, errors.New("fenced"), "")}},
		HTTPAddr: "127.0.0.1:0",
		Registry: NewRegistry(),
		Logger:   slog.New(slog.DiscardHandler),
	}
	if err := Serve(t.Context(), cfg); Code(err) != ExitFenced {
		t.Errorf("error %v", err)
	}
}
