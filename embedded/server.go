package embedded

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/ltxstream/ltxstream/internal/dirlock"
)

const (
	memoryStore   = 64 << 20  // we keep nothing in memory streams
	streamIngest  = 512 << 20 // queued bytes per stream before the server drops (429)
	startDeadline = 5 * time.Second
)

// ErrNotRunning is returned by Connect before Start and after Shutdown.
var ErrNotRunning = errors.New("embedded nats-server is not running")

// ErrListen is in the chain of Start's error when the listen address cannot be
// used. The error also wraps the system's, syscall.EADDRINUSE for example.
var ErrListen = errors.New("cannot listen")

// Server is one nats-server. Methods are safe for concurrent use, except that
// Start is called once.
type Server struct {
	cfg  Config
	addr listenAddr
	log  *bridge

	mu struct {
		sync.Mutex
		srv  *server.Server     // nil: not running
		lock *dirlock.Lock      // nil: not started
		stop context.CancelFunc // of the watch goroutine
	}
	watching sync.WaitGroup
}

var _ nats.InProcessConnProvider = (*Server)(nil)

// New checks cfg, reporting all faults, and changes nothing.
func New(cfg Config) (*Server, error) {
	addr, err := cfg.validate()
	if err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	return &Server{cfg: cfg, addr: addr, log: &bridge{logger: cfg.Logger}}, nil
}

// Run starts the server, waits for ctx to end and shuts the server down.
func (s *Server) Run(ctx context.Context) error {
	if err := s.Start(ctx); err != nil {
		return err
	}
	<-ctx.Done()
	return s.Shutdown()
}

// Start returns once the server takes connections and JetStream has recovered
// its store. On error nothing is left running and the directory is unlocked.
// Errors: [*LockedError], [ErrListen]. A ctx that has ended starts nothing; one
// that ends later does not stop the server.
func (s *Server) Start(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.lock != nil {
		return errors.New("start embedded nats-server: running already")
	}
	if err := os.MkdirAll(s.cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("create embedded store: %w", err)
	}
	lock, err := lockDir(s.cfg.Dir)
	if err != nil {
		return err
	}
	srv, err := s.launch()
	if err != nil {
		return errors.Join(err, lock.Release())
	}
	s.addr.port = listenPort(srv) // a restart keeps it
	wctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.mu.srv, s.mu.lock, s.mu.stop = srv, lock, stop
	s.watching.Go(func() { s.watch(wctx) })
	s.announce(srv)
	return nil
}

// launch starts a nats-server on the locked directory.
func (s *Server) launch() (*server.Server, error) {
	if err := s.probeListen(); err != nil {
		return nil, err
	}
	opts, err := s.options()
	if err != nil {
		return nil, err
	}
	srv, err := server.NewServer(opts)
	if err != nil {
		return nil, fmt.Errorf("create embedded nats-server: %w", err)
	}
	s.log.reset()
	srv.SetLoggerV2(s.log, false, false, false)
	srv.Start() // returns when all is started
	if err := s.started(srv); err != nil {
		stopServer(srv)
		return nil, fmt.Errorf("start embedded nats-server: %w", err)
	}
	return srv, nil
}

func (s *Server) started(srv *server.Server) error {
	switch text := s.log.fatal(); {
	case text != "":
		return errors.New(text)
	case !srv.ReadyForConnections(startDeadline):
		return fmt.Errorf("not ready after %v", startDeadline)
	case !srv.JetStreamEnabled():
		return errors.New("JetStream is not enabled")
	}
	return nil
}

func (s *Server) options() (*server.Options, error) {
	limit, err := storeLimit(s.cfg.Dir, s.cfg.MaxStore)
	if err != nil {
		return nil, err
	}
	opts := &server.Options{
		ServerName:            "ltxstream-embedded",
		NoSigs:                true,
		DontListen:            s.addr.host == "",
		Host:                  s.addr.host,
		Port:                  s.addr.port,
		MaxPayload:            s.cfg.MaxPayload,
		JetStream:             true,
		StoreDir:              s.storeDir(),
		JetStreamMaxStore:     limit,
		JetStreamMaxMemory:    memoryStore,
		StreamMaxBufferedSize: streamIngest,
		SyncInterval:          s.cfg.SyncInterval,
		SyncAlways:            s.cfg.SyncInterval == 0,
	}
	return opts, nil
}

func (s *Server) storeDir() string { return filepath.Join(s.cfg.Dir, "store") }

// probeListen gives a typed error for an address in use: the nats-server only
// logs one.
func (s *Server) probeListen() error {
	if s.addr.host == "" {
		return nil
	}
	l, err := net.Listen("tcp", s.addr.String())
	if err != nil {
		return &ListenError{Addr: s.addr.String(), Err: err}
	}
	return l.Close()
}

// ListenError says which address could not be listened on, and why.
type ListenError struct {
	Addr string
	Err  error
}

func (e *ListenError) Error() string { return fmt.Sprintf("listen on %s: %v", e.Addr, e.Err) }

// Unwrap gives ErrListen and the system's error.
func (e *ListenError) Unwrap() []error { return []error{ErrListen, e.Err} }

// Hint is the next step for an operator.
func (e *ListenError) Hint() string {
	return "nothing was changed; something listens there already: connect to it with --server nats://" + e.Addr +
		", or choose another address with --embedded-listen"
}

func (s *Server) announce(srv *server.Server) {
	if s.addr.host != "" && !s.addr.loopback() {
		s.cfg.Logger.Warn("embedded nats-server is reachable from other machines without authentication", "listen", s.addr.String())
	}
	s.cfg.Logger.Info("embedded nats-server started", "dir", s.cfg.Dir, "url", clientURL(s.addr, srv),
		"sync_always", s.cfg.SyncInterval == 0)
}

// Shutdown stops the server, waits until its store is closed, and unlocks the
// directory. Connections are cut: drain them first. Calling it again does
// nothing.
func (s *Server) Shutdown() error {
	s.mu.Lock()
	lock, stop := s.mu.lock, s.mu.stop
	s.mu.lock, s.mu.stop = nil, nil
	s.mu.Unlock()
	if lock == nil {
		return nil
	}
	stop()
	s.watching.Wait() // from here on nobody else replaces the server
	if srv := s.running(); srv != nil {
		stopServer(srv)
		s.setRunning(nil)
	}
	s.cfg.Logger.Info("embedded nats-server stopped", "dir", s.cfg.Dir)
	return lock.Release() // after the store is closed: the next one may open it
}

func stopServer(srv *server.Server) {
	srv.Shutdown()
	srv.WaitForShutdown()
}

// InProcessConn is one end of a pipe to the server that runs now; nats.go asks
// for a new one when it reconnects. Errors: [ErrNotRunning].
func (s *Server) InProcessConn() (net.Conn, error) {
	srv := s.running()
	if srv == nil {
		return nil, ErrNotRunning
	}
	return srv.InProcessConn()
}

// Connect returns a connection that needs no socket. The caller closes it.
// Errors: [ErrNotRunning].
func (s *Server) Connect(opts ...nats.Option) (*nats.Conn, error) {
	nc, err := nats.Connect("", append([]nats.Option{nats.InProcessServer(s)}, opts...)...)
	if err != nil {
		return nil, fmt.Errorf("connect to embedded nats-server: %w", err)
	}
	return nc, nil
}

// ClientURL is the address for other processes, with the port that was chosen;
// empty without a listener or while not running.
func (s *Server) ClientURL() string {
	if srv := s.running(); srv != nil {
		return clientURL(s.addr, srv)
	}
	return ""
}

// listenPort is the port in use, 0 without a listener.
func listenPort(srv *server.Server) int {
	if a, ok := srv.Addr().(*net.TCPAddr); ok && a != nil {
		return a.Port
	}
	return 0
}

func clientURL(addr listenAddr, srv *server.Server) string {
	if addr.host == "" {
		return ""
	}
	return srv.ClientURL()
}

func (s *Server) running() *server.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.srv
}
