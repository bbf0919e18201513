package testenv

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/ltxstream/ltxstream/testenv/natsserver"
)

// patience is how long helpers wait for what should take a moment.
const patience = time.Minute

// User and Config are those of natsserver, for short.
type (
	Config = natsserver.Config
	User   = natsserver.User
)

// A Server is one nats-server bound to a test, whose methods fail the test instead of returning errors.
type Server struct {
	*natsserver.Server
	t testing.TB
}

// Node runs one nats-server in this process: JetStream on files in a directory of the test's, a free port, the server's lazy
// default of fsync. edit changes that configuration.
func Node(t testing.TB, edit ...func(*Config)) *Server {
	t.Helper()
	return node(t, natsserver.Start, edit)
}

// NodeProcess is Node in a child process: its Kill is a SIGKILL.
func NodeProcess(t testing.TB, edit ...func(*Config)) *Server {
	t.Helper()
	return node(t, natsserver.StartProcess, edit)
}

func node(t testing.TB, start func(context.Context, Config) (*natsserver.Server, error), edit []func(*Config)) *Server {
	t.Helper()
	cfg := Config{Name: "n1", Dir: t.TempDir()}
	for _, e := range edit {
		e(&cfg)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stopAtEnd(t, s.Stop) })
	return &Server{Server: s, t: t}
}

// SyncAlways edits a Config: fsync before each acknowledgement.
func SyncAlways(c *Config) { c.SyncAlways = true }

// NoJetStream edits a Config: core NATS only.
func NoJetStream(c *Config) { c.NoJetStream = true }

// Users returns an edit of a Config: only these users may connect, each with their own permissions.
func Users(users ...User) func(*Config) {
	return func(c *Config) { c.Users = users }
}

// Connect connects to the server until the end of the test.
func (s *Server) Connect(opts ...nats.Option) *nats.Conn {
	s.t.Helper()
	return Connect(s.t, s.URL(), opts...)
}

// JetStream connects and returns the connection's JetStream.
func (s *Server) JetStream(opts ...nats.Option) jetstream.JetStream {
	s.t.Helper()
	return JetStream(s.t, s.Connect(opts...))
}

// Stop ends the server in an orderly way.
func (s *Server) Stop() {
	s.t.Helper()
	s.must(s.Server.Stop)
}

// Kill ends a server of NodeProcess with SIGKILL.
func (s *Server) Kill() {
	s.t.Helper()
	s.must(func(context.Context) error { return s.Server.Kill() })
}

// Restart stops the server, if it runs, and starts it on the same directory and port, with its configuration edited.
func (s *Server) Restart(edit ...func(*Config)) {
	s.t.Helper()
	s.must(func(ctx context.Context) error {
		return s.RestartWith(ctx, func(c *Config) {
			for _, e := range edit {
				e(c)
			}
		})
	})
}

func (s *Server) must(f func(context.Context) error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience) // also used by clean-up functions of tests
	defer cancel()
	if err := f(ctx); err != nil {
		s.t.Fatal(err)
	}
}

// Cluster runs three nodes with replicated JetStream in this process.
func Cluster(t testing.TB, edit ...func(*Config)) *natsserver.Cluster {
	t.Helper()
	return cluster(t, natsserver.StartCluster, edit)
}

// ClusterProcesses is Cluster with a child process for each node: KillLeader works.
func ClusterProcesses(t testing.TB, edit ...func(*Config)) *natsserver.Cluster {
	t.Helper()
	return cluster(t, natsserver.StartClusterProcesses, edit)
}

func cluster(t testing.TB, start func(context.Context, string, Config) (*natsserver.Cluster, error), edit []func(*Config)) *natsserver.Cluster {
	t.Helper()
	var cfg Config
	for _, e := range edit {
		e(&cfg)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	c, err := start(ctx, t.TempDir(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stopAtEnd(t, c.Stop) })
	return c
}

func stopAtEnd(t testing.TB, stop func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := stop(ctx); err != nil {
		t.Error(err)
	}
}

// Connect connects to url until the end of the test: never giving up, never buffering while disconnected.
func Connect(t testing.TB, url string, opts ...nats.Option) *nats.Conn {
	t.Helper()
	all := append([]nats.Option{nats.MaxReconnects(-1), nats.ReconnectWait(50 * time.Millisecond), nats.ReconnectBufSize(-1)}, opts...)
	nc, err := dial(url, all)
	if err != nil {
		t.Fatalf("connect to %s: %v", url, err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// dial asks a server again that took longer for its first words than nats.go waits. (A longer nats.Timeout would hold for
// reconnections too, and keep them in a connection that is silent.)
func dial(url string, opts []nats.Option) (*nats.Conn, error) {
	for deadline := time.Now().Add(patience); ; {
		nc, err := nats.Connect(url, opts...)
		slow := errors.Is(err, nats.ErrTimeout)
		if e, ok := errors.AsType[net.Error](err); ok {
			slow = slow || e.Timeout()
		}
		if !slow || time.Now().After(deadline) {
			return nc, err
		}
	}
}

// JetStream returns the connection's JetStream.
func JetStream(t testing.TB, nc *nats.Conn) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatalf("open jetstream: %v", err)
	}
	return js
}
