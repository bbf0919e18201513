package child

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

const (
	envJob  = "LTXSTREAM_TESTENV_JOB"
	envSpec = "LTXSTREAM_TESTENV_SPEC"

	// grace is how long a job may go on after it was asked to end.
	grace = time.Minute
)

// Job is what a child process does. It returns soon after ctx ends: its parent asked for that, or is gone.
type Job func(ctx context.Context, spec json.RawMessage, out *Output) error

// Jobs are the jobs a program can do, by name.
type Jobs map[string]Job

// Dispatch does nothing in an ordinary process. In a child made by Start it does the job asked for and exits: 0, or 1
// with the error on standard error. Call it before anything else, flag parsing included.
func Dispatch(jobs Jobs) {
	name, ok := os.LookupEnv(envJob)
	if !ok {
		return
	}
	spec := json.RawMessage(os.Getenv(envSpec))
	_ = os.Unsetenv(envJob) // a child of the child is nobody's job
	_ = os.Unsetenv(envSpec)
	if err := run(jobs, name, spec); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func run(jobs Jobs, name string, spec json.RawMessage) error {
	job, ok := jobs[name]
	if !ok {
		return fmt.Errorf("run child: no job %q", name)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	go endWithParent(cancel)
	if err := job(ctx, spec, &Output{w: os.Stdout}); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("run child %s: %w", name, err)
	}
	return nil
}

// endWithParent waits for the end of standard input, which comes when the parent closes it or dies, and makes sure of the end.
func endWithParent(cancel context.CancelFunc) {
	_, _ = io.Copy(io.Discard, os.Stdin)
	cancel()
	time.Sleep(grace)
	os.Exit(3)
}

// Output sends JSON lines to the parent. Safe for concurrent use.
type Output struct {
	mu struct{ sync.Mutex }
	w  io.Writer
}

// Send writes v as one line. An error means that nobody reads any more.
func (o *Output) Send(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("send report: %w", err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, err := o.w.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("send report: %w", err)
	}
	return nil
}
