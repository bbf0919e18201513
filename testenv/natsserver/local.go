package natsserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// local is a server in this process.
type local struct{ s *server.Server }

func startLocal(ctx context.Context, cfg Config) (runner, error) {
	s, err := server.NewServer(cfg.options())
	if err != nil {
		return nil, err
	}
	var complaints complaints
	s.SetLogger(&complaints, false, false)
	s.Start()
	if err := waitReady(ctx, s, &complaints); err != nil {
		s.Shutdown()
		s.WaitForShutdown()
		return nil, err
	}
	return &local{s: s}, nil
}

// waitReady returns once the server accepts connections, or has said why it does not.
func waitReady(ctx context.Context, s *server.Server, said *complaints) error {
	for deadline := time.Now().Add(ready); !s.ReadyForConnections(20 * time.Millisecond); {
		if err := said.fatal(); err != nil {
			return err
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not ready in %s: %w", ready, said.all())
		}
	}
	return said.fatal()
}

func (l *local) port() int   { return l.s.Addr().(*net.TCPAddr).Port }
func (l *local) pid() int    { return 0 }
func (l *local) kill() error { return ErrNotKillable }

func (l *local) stop(context.Context) error {
	l.s.Shutdown()
	l.s.WaitForShutdown()
	return nil
}

// complaints is a server's logger that keeps fatal errors (a port in use, a store that cannot be opened) and drops the rest.
type complaints struct {
	mu struct {
		sync.Mutex
		fatal []error
		other []error
	}
}

const keepComplaints = 20

func (c *complaints) fatal() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(c.mu.fatal...)
}

func (c *complaints) all() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(append(c.mu.fatal, c.mu.other...)...)
}

// Fatalf, Errorf, Warnf, Noticef, Debugf and Tracef are server.Logger.
func (c *complaints) Fatalf(format string, v ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.fatal = append(c.mu.fatal, fmt.Errorf(format, v...))
}

func (c *complaints) Errorf(format string, v ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.mu.other) < keepComplaints {
		c.mu.other = append(c.mu.other, fmt.Errorf(format, v...))
	}
}

func (c *complaints) Warnf(string, ...any)   {}
func (c *complaints) Noticef(string, ...any) {}
func (c *complaints) Debugf(string, ...any)  {}
func (c *complaints) Tracef(string, ...any)  {}
