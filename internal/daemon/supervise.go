package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Runner is a role that is run: Run blocks until ctx ends (then nil, after a
// flush) or the role cannot go on.
type Runner interface {
	Role
	Run(ctx context.Context) error
}

// Supervised is a Runner whose end shows in Ready.
type Supervised struct {
	Runner
	mu struct {
		sync.Mutex
		ended bool
		err   error
	}
}

// Supervise wraps runners for RunAll.
func Supervise(runners ...Runner) []*Supervised {
	out := make([]*Supervised, len(runners))
	for i, r := range runners {
		out[i] = &Supervised{Runner: r}
	}
	return out
}

// Roles are the same values as Role.
func Roles(all []*Supervised) []Role {
	out := make([]Role, len(all))
	for i, s := range all {
		out[i] = s
	}
	return out
}

// Ready is the runner's own while it runs, an error afterwards.
func (s *Supervised) Ready(maxLag time.Duration) error {
	s.mu.Lock()
	ended, err := s.mu.ended, s.mu.err
	s.mu.Unlock()
	if !ended {
		return s.Runner.Ready(maxLag)
	}
	if err == nil {
		return errors.New("stopped")
	}
	return fmt.Errorf("stopped: %w", err)
}

func (s *Supervised) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.ended, s.mu.err = true, err
}

// RunAll runs all and returns when the last has ended, with the errors of
// those that failed; a runner's error says which one it was. One that fails leaves the others at
// work: many databases share a process, and a fenced one is no reason to stop
// replicating the rest.
func RunAll(ctx context.Context, logger *slog.Logger, all []*Supervised) error {
	errs := make([]error, len(all))
	var running sync.WaitGroup
	for i, s := range all {
		running.Go(func() {
			err := s.Run(ctx)
			s.end(err)
			if err == nil {
				return
			}
			errs[i] = err
			if len(all) > 1 { // alone, the error is the command's
				logger.Error("role stopped, the others go on", "db", s.Name(), "err", err)
			}
		})
	}
	running.Wait()
	return errors.Join(errs...)
}
