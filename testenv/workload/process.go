package workload

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/ltxstream/ltxstream/testenv/child"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

const (
	jobName = "workload"
	batch   = 10 // transactions between two reports
)

// Jobs are the jobs this package needs in child.Dispatch.
func Jobs() child.Jobs { return child.Jobs{jobName: job} }

// spec is what goes to the child.
type spec struct {
	Path   string          `json:"path"`
	DB     sqlconn.Options `json:"db"`
	Config Config          `json:"config"`
	N      int             `json:"n"`
}

// Process is a workload in a process of its own, which can be killed inside a transaction. Safe for concurrent use.
type Process struct {
	*child.Process
	reports *child.Reports[Report]
}

// Start runs n transactions (0: until stopped) on the database at path in a child process.
func Start(path string, db sqlconn.Options, cfg Config, n int) (*Process, error) {
	p := &Process{reports: child.NewReports[Report](Report{}, nil)}
	c, err := child.Start(jobName, spec{Path: path, DB: db, Config: cfg, N: n}, p.reports.Line)
	if err != nil {
		return nil, fmt.Errorf("start workload: %w", err)
	}
	p.Process = c
	return p, nil
}

// Report returns the newest report; one comes with every tenth transaction.
func (p *Process) Report() (Report, error) { return p.reports.Last() }

// WaitFor returns once at least n transactions are committed.
func (p *Process) WaitFor(ctx context.Context, n int64) (Report, error) {
	return p.reports.WaitFor(ctx, p.Process, func(r Report) (bool, error) { return r.Commits >= n, nil })
}

// job is the child's side.
func job(ctx context.Context, raw json.RawMessage, out *child.Output) error {
	var s spec
	if err := json.Unmarshal(raw, &s); err != nil {
		return fmt.Errorf("decode config: %w", err)
	}
	db, err := sqlconn.OpenOne(ctx, s.Path, s.DB)
	if err != nil {
		return err
	}
	defer db.Close()
	w := New(s.Config)
	for done := 0; (s.N == 0 || done < s.N) && ctx.Err() == nil; {
		n := batch
		if s.N > 0 {
			n = min(batch, s.N-done)
		}
		r, err := w.Run(ctx, db, n)
		if err != nil && ctx.Err() == nil {
			return err
		}
		if err := out.Send(r); err != nil {
			return err
		}
		done += n
	}
	return nil
}
