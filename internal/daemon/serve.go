package daemon

import (
	"context"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
)

// ServeConfig says what Serve runs.
type ServeConfig struct {
	Runners  []Runner
	HTTPAddr string               // empty: no HTTP server
	Registry *prometheus.Registry // of /metrics
	Logger   *slog.Logger
}

// Serve runs all runners, and the HTTP server for as long as one of them runs.
// A failing HTTP server ends them all.
func Serve(ctx context.Context, cfg ServeConfig) error {
	all := Supervise(cfg.Runners...)
	if cfg.HTTPAddr == "" {
		return RunAll(ctx, cfg.Logger, all)
	}
	srv, err := ListenHTTP(HTTPConfig{Addr: cfg.HTTPAddr, Roles: Roles(all), Registry: cfg.Registry, Logger: cfg.Logger})
	if err != nil {
		return err
	}
	httpCtx, stopHTTP := context.WithCancel(context.WithoutCancel(ctx)) // answers during the flush
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return srv.Run(httpCtx) })
	g.Go(func() error {
		defer stopHTTP()
		return RunAll(ctx, cfg.Logger, all)
	})
	return g.Wait()
}
