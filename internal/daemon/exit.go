package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// Exit codes of all commands.
const (
	ExitOK          = 0
	ExitFailure     = 1
	ExitUsage       = 2
	ExitNotFound    = 10
	ExitFenced      = 11 // fenced by another publisher, or locked by another process
	ExitLag         = 20 // not there within the time or lag allowed
	ExitUnverified  = 21
	ExitGap         = 22 // gap or divergence
	ExitInterrupted = 130
)

// ErrInterrupted is the cause of a context that a signal ended.
var ErrInterrupted = errors.New("interrupted")

// ExitError gives an error its exit code and the next step. Other error types
// do the same by having methods ExitCode() int or Hint() string.
type ExitError struct {
	Code int
	Next string // what is safe and what to do; may be empty
	Err  error
}

func (e *ExitError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *ExitError) Unwrap() error { return e.Err }

// ExitCode is Code.
func (e *ExitError) ExitCode() int { return e.Code }

// Hint is Next.
func (e *ExitError) Hint() string { return e.Next }

// Exit wraps err with a code and a hint; nil stays nil.
func Exit(code int, err error, next string) error {
	if err == nil {
		return nil
	}
	return &ExitError{Code: code, Next: next, Err: err}
}

// Code is the exit code of err: that of the outermost error which has one, 130
// for an interrupt, 0 for nil, else 1.
func Code(err error) int {
	if err == nil {
		return ExitOK
	}
	if e, ok := errors.AsType[interface {
		error
		ExitCode() int
	}](err); ok {
		return e.ExitCode()
	}
	if errors.Is(err, ErrInterrupted) || errors.Is(err, context.Canceled) {
		return ExitInterrupted
	}
	return ExitFailure
}

// Report prints err, and its hint on a line of its own, and returns its code.
// It prints nothing for nil.
func Report(w io.Writer, command string, err error) int {
	if err == nil {
		return ExitOK
	}
	fmt.Fprintf(w, "%s: %v\n", command, err)
	if h, ok := errors.AsType[interface {
		error
		Hint() string
	}](err); ok && h.Hint() != "" {
		fmt.Fprintf(w, "%s: hint: %s\n", command, h.Hint())
	}
	return Code(err)
}
