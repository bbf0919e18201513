package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// HTTPConfig says what the HTTP server serves.
type HTTPConfig struct {
	Addr     string               // HOST:PORT; port 0 picks a free one
	Roles    []Role               // of /readyz and /status
	Registry *prometheus.Registry // of /metrics; nil: an empty one
	Logger   *slog.Logger         // nil: slog.Default()
}

// NewRegistry returns a registry with the Go runtime's and the process's own
// metrics.
func NewRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// HTTPServer serves /healthz, /readyz, /metrics and /status.
type HTTPServer struct {
	cfg      HTTPConfig
	listener net.Listener
}

// ListenHTTP opens the listener, so that a wrong address is an error now. Run
// or Close must follow.
func ListenHTTP(cfg HTTPConfig) (*HTTPServer, error) {
	if cfg.Registry == nil {
		cfg.Registry = prometheus.NewRegistry()
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	l, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("listen for http on %q: %w", cfg.Addr, err)
	}
	return &HTTPServer{cfg: cfg, listener: l}, nil
}

// Addr is the address listened on.
func (s *HTTPServer) Addr() string { return s.listener.Addr().String() }

// Close ends a server that was not run.
func (s *HTTPServer) Close() error { return s.listener.Close() }

// Run serves until ctx ends, then lets requests finish for a second.
func (s *HTTPServer) Run(ctx context.Context) error {
	srv := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       time.Minute,
		ErrorLog:          slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelWarn),
	}
	s.cfg.Logger.Info("http server started", "addr", s.Addr())
	var closing sync.WaitGroup
	defer closing.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	closing.Go(func() {
		<-ctx.Done()
		shutdown(ctx, srv)
	})
	if err := srv.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve http: %w", err)
	}
	return nil
}

func shutdown(ctx context.Context, srv *http.Server) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if srv.Shutdown(ctx) != nil {
		_ = srv.Close() // requests that outlast the second are cut
	}
}

// Handler serves the four paths.
func (s *HTTPServer) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", s.ready)
	mux.HandleFunc("GET /status", s.status)
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.cfg.Registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
	return mux
}

// readiness is the body of /readyz.
type readiness struct {
	Ready   bool     `json:"ready"`
	Reasons []reason `json:"reasons,omitempty"`
}

type reason struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

func (s *HTTPServer) ready(w http.ResponseWriter, r *http.Request) {
	maxLag, err := parseMaxLag(r.FormValue("max_lag"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	body := readiness{Ready: true}
	for _, role := range s.cfg.Roles {
		if err := role.Ready(maxLag); err != nil {
			body.Ready = false
			body.Reasons = append(body.Reasons, reason{role.Name(), err.Error()})
		}
	}
	code := http.StatusOK
	if !body.Ready {
		code = http.StatusServiceUnavailable
	}
	s.reply(w, code, body)
}

func parseMaxLag(v string) (time.Duration, error) {
	if v == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(v)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("parse max_lag %q: want a positive duration like 2s", v)
	}
	return d, nil
}

func (s *HTTPServer) status(w http.ResponseWriter, _ *http.Request) {
	all := make([]any, 0, len(s.cfg.Roles))
	for _, role := range s.cfg.Roles {
		all = append(all, role.Status())
	}
	s.reply(w, http.StatusOK, all)
}

func (s *HTTPServer) reply(w http.ResponseWriter, code int, body any) {
	buf, err := json.MarshalIndent(body, "", "  ")
	if err != nil {
		s.cfg.Logger.Error("status does not encode", "err", err)
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(buf, '\n')) // a client that went away is not our fault
}
