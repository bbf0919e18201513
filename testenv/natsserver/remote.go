package natsserver

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/ltxstream/ltxstream/testenv/child"
)

const jobName = "nats-server"

// Jobs are the jobs this package needs in child.Dispatch.
func Jobs() child.Jobs { return child.Jobs{jobName: job} }

// remote is a server in a child process.
type remote struct {
	p      *child.Process
	listen int
}

// started is what the child sends once it accepts connections.
type started struct {
	Port int `json:"port"`
}

func startChild(ctx context.Context, cfg Config) (runner, error) {
	reports := child.NewReports(started{}, nil)
	p, err := child.Start(jobName, cfg, reports.Line)
	if err != nil {
		return nil, err
	}
	s, err := reports.WaitFor(ctx, p, func(s started) (bool, error) { return s.Port != 0, nil })
	if err != nil {
		p.Kill()
		return nil, err
	}
	return &remote{p: p, listen: s.Port}, nil
}

func (r *remote) port() int                      { return r.listen }
func (r *remote) pid() int                       { return r.p.PID() }
func (r *remote) stop(ctx context.Context) error { return r.p.Stop(ctx) }

func (r *remote) kill() error {
	r.p.Kill()
	return nil
}

// job is the child's side.
func job(ctx context.Context, spec json.RawMessage, out *child.Output) error {
	var cfg Config
	if err := json.Unmarshal(spec, &cfg); err != nil {
		return fmt.Errorf("decode config: %w", err)
	}
	r, err := startLocal(ctx, cfg)
	if err != nil {
		return err
	}
	if err := out.Send(started{Port: r.port()}); err != nil {
		return err
	}
	<-ctx.Done()
	return r.stop(ctx)
}
