package app

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/ltxstream/ltxstream/testenv/child"
)

const (
	jobName     = "app"
	reportEvery = 100 * time.Millisecond
)

// Jobs are the jobs this package needs in child.Dispatch.
func Jobs() child.Jobs { return child.Jobs{jobName: job} }

// Progress is what an application in a child process reports, ten times a second while it commits, and at the end.
type Progress struct {
	Final   bool     `json:"final"`
	Report  Report   `json:"report"` // only Commits and LastSeq before the end
	Commits []Commit `json:"commits,omitempty"`
}

// spec is what goes to the child.
type spec struct {
	Config Config `json:"config"`
	Trace  bool   `json:"trace"`
}

// Process is an application in a process of its own. Safe for concurrent use.
type Process struct {
	*child.Process
	reports *child.Reports[Progress]
}

// Start runs the application of cfg in a child process.
func Start(cfg Config) (*Process, error) { return start(spec{Config: cfg}) }

// StartTraced is Start with every single commit reported: for the measurement of lag. Memory grows with each commit.
func StartTraced(cfg Config) (*Process, error) { return start(spec{Config: cfg, Trace: true}) }

func start(s spec) (*Process, error) {
	p := &Process{reports: child.NewReports(Progress{}, func(old, next Progress) Progress {
		next.Commits = append(old.Commits, next.Commits...)
		return next
	})}
	c, err := child.Start(jobName, s, p.reports.Line)
	if err != nil {
		return nil, fmt.Errorf("start application: %w", err)
	}
	p.Process = c
	return p, nil
}

// Progress returns the newest report, with all traced commits so far.
func (p *Process) Progress() Progress {
	r, _ := p.reports.Last()
	return r
}

// WaitFor returns once at least n transfers are committed.
func (p *Process) WaitFor(ctx context.Context, n int64) (Progress, error) {
	return p.reports.WaitFor(ctx, p.Process, func(r Progress) (bool, error) { return r.Report.Commits >= n, nil })
}

// Finish stops the application and returns its last report.
func (p *Process) Finish(ctx context.Context) (Progress, error) {
	if err := p.Stop(ctx); err != nil {
		return p.Progress(), err
	}
	return p.final()
}

// Result waits for an application with a Limit or a Duration to end by itself and returns its last report.
func (p *Process) Result(ctx context.Context) (Progress, error) {
	if err := p.Wait(ctx); err != nil {
		return p.Progress(), err
	}
	return p.final()
}

func (p *Process) final() (Progress, error) {
	r, err := p.reports.Last()
	if err == nil && !r.Final {
		err = fmt.Errorf("application %d: ended without a final report", p.PID())
	}
	return r, err
}

// job is the child's side.
func job(ctx context.Context, raw json.RawMessage, out *child.Output) error {
	var s spec
	if err := json.Unmarshal(raw, &s); err != nil {
		return fmt.Errorf("decode config: %w", err)
	}
	rep := &reporter{out: out, trace: s.Trace}
	s.Config.Observe = rep.observe
	stop := rep.run()
	r, err := Run(ctx, s.Config)
	stop()
	if err != nil {
		return err
	}
	return rep.send(&r)
}

// reporter hands commits from the writing goroutine to the pipe, so that a slow reader never delays a commit.
type reporter struct {
	out   *child.Output
	trace bool
	mu    struct {
		sync.Mutex
		next Progress
	}
}

func (r *reporter) observe(c Commit) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.next.Report.Commits++
	r.mu.next.Report.LastSeq = c.Seq
	if r.trace {
		r.mu.next.Commits = append(r.mu.next.Commits, c)
	}
}

// run sends reports until the returned function is called.
func (r *reporter) run() (stop func()) {
	quit := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(reportEvery)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				_ = r.send(nil) // a parent that is gone ends this process through its input
			}
		}
	})
	return func() { close(quit); wg.Wait() }
}

func (r *reporter) send(final *Report) error {
	r.mu.Lock()
	p := r.mu.next
	r.mu.next.Commits = nil
	r.mu.Unlock()
	if final != nil {
		p.Final, p.Report = true, *final
	}
	return r.out.Send(p)
}
