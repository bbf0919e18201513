package foreign

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os/exec"

	"github.com/ltxstream/ltxstream/testenv/child"
)

//go:embed foreign.py
var script string

const jobName = "foreign"

// Jobs are the jobs this package needs in child.Dispatch.
func Jobs() child.Jobs { return child.Jobs{jobName: job} }

// Process is a running foreign process. Safe for concurrent use.
type Process struct {
	*child.Process
	cfg     Config
	reports *child.Reports[Report]
}

// Start starts one. It ends with Finish, Stop, Kill, its Limit, or this process.
func Start(cfg Config) (*Process, error) {
	p := &Process{cfg: cfg.withDefaults(), reports: child.NewReports(Report{FirstSeq: -1}, collectSeen)}
	c, err := p.start()
	if err != nil {
		return nil, fmt.Errorf("start %s %s: %w", p.cfg.Runtime, p.cfg.Action, err)
	}
	p.Process = c
	return p, nil
}

func collectSeen(old, next Report) Report {
	next.Seen = append(old.Seen, next.Seen...)
	return next
}

func (p *Process) start() (*child.Process, error) {
	if p.cfg.Runtime == Go {
		return child.Start(jobName, p.cfg, p.reports.Line)
	}
	spec, err := json.Marshal(p.cfg)
	if err != nil {
		return nil, err
	}
	return child.StartCommand(exec.Command("python3", "-c", script, string(spec)), p.reports.Line)
}

// Report returns the newest report, with all that was Seen so far; a running process sends ten a second.
func (p *Process) Report() Report {
	r, _ := p.reports.Last() // a broken line is an error of Finish
	return r
}

// WaitFor returns once cond holds for a report. It fails at a violation, or when the process or ctx ends first.
func (p *Process) WaitFor(ctx context.Context, cond func(Report) bool) (Report, error) {
	return p.reports.WaitFor(ctx, p.Process, func(r Report) (bool, error) {
		if ok := cond(r); ok || r.Violation == nil {
			return ok, nil
		}
		return false, p.wrap(r.Violation)
	})
}

// Finish stops the process and returns its final report; a violation in it is the error, as is its absence.
func (p *Process) Finish(ctx context.Context) (Report, error) {
	if err := p.Stop(ctx); err != nil {
		return p.Report(), p.wrap(err)
	}
	r, err := p.reports.Last()
	switch {
	case err != nil:
		return r, p.wrap(err)
	case r.Violation != nil:
		return r, p.wrap(r.Violation)
	case !r.Final:
		return r, p.wrap(fmt.Errorf("ended without a final report"))
	}
	return r, nil
}

func (p *Process) wrap(err error) error {
	return fmt.Errorf("%s %s of %s: %w", p.cfg.Runtime, p.cfg.Action, p.cfg.Path, err)
}
