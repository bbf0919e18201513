package natsserver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// ready is how long a server may take to accept connections, its store's recovery included.
const ready = time.Minute

// ErrNotKillable is what Kill of a server in this process returns.
var ErrNotKillable = errors.New("a server in this process cannot be killed")

// Server is one nats-server that can be stopped and started again. Not safe for concurrent use.
type Server struct {
	cfg Config
	url string
	run func(context.Context, Config) (runner, error)
	now runner // nil while stopped
}

// runner is a server while it runs.
type runner interface {
	port() int
	stop(context.Context) error // flushes; returns when it is gone
	kill() error                // SIGKILL
	pid() int                   // 0: this process
}

// Start runs a server in this process and returns once it accepts connections.
func Start(ctx context.Context, cfg Config) (*Server, error) { return start(ctx, cfg, startLocal) }

// StartProcess runs a server in a child process of its own, which can be killed.
func StartProcess(ctx context.Context, cfg Config) (*Server, error) {
	return start(ctx, cfg, startChild)
}

func start(ctx context.Context, cfg Config, run func(context.Context, Config) (runner, error)) (*Server, error) {
	s := &Server{cfg: cfg, run: run}
	if err := s.Restart(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// URL is what clients connect to; it stays the same over restarts.
func (s *Server) URL() string { return s.url }

// Addr is the same as host:port.
func (s *Server) Addr() string { return fmt.Sprintf("127.0.0.1:%d", s.cfg.Port) }

// Config returns the configuration, with the port in use.
func (s *Server) Config() Config { return s.cfg }

// Running reports whether the server was neither stopped nor killed.
func (s *Server) Running() bool { return s.now != nil }

// PID is the process of a server that runs in a child, else 0.
func (s *Server) PID() int {
	if s.now == nil {
		return 0
	}
	return s.now.pid()
}

// Local is the server in this process; nil when it is stopped or runs in a child.
func (s *Server) Local() *server.Server {
	if l, ok := s.now.(*local); ok {
		return l.s
	}
	return nil
}

// Stop ends the server in an orderly way and returns when it is gone. A stopped one stays so.
func (s *Server) Stop(ctx context.Context) error {
	if s.now == nil {
		return nil
	}
	err := s.now.stop(ctx)
	s.now = nil
	if err != nil {
		return fmt.Errorf("stop nats-server: %w", err)
	}
	return nil
}

// Kill ends the server's process with SIGKILL: nothing is flushed by it. ErrNotKillable for one in this process.
func (s *Server) Kill() error {
	if s.now == nil {
		return nil
	}
	if err := s.now.kill(); err != nil {
		return fmt.Errorf("kill nats-server: %w", err)
	}
	s.now = nil
	return nil
}

// Restart stops the server if it runs, and starts it on the same directory and port.
func (s *Server) Restart(ctx context.Context) error { return s.RestartWith(ctx, nil) }

// RestartWith is Restart with the configuration changed by edit, if that is not nil.
func (s *Server) RestartWith(ctx context.Context, edit func(*Config)) error {
	if err := s.Stop(ctx); err != nil {
		return err
	}
	if edit != nil {
		edit(&s.cfg)
	}
	r, err := s.run(ctx, s.cfg)
	if err != nil {
		return fmt.Errorf("start nats-server: %w", err)
	}
	s.now, s.cfg.Port = r, r.port()
	s.url = "nats://" + s.Addr()
	return nil
}
