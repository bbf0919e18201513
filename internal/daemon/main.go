package daemon

import (
	"context"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// RunFunc is a command: it returns its exit code and ends when ctx does.
type RunFunc func(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int

// Main runs a command with this process's arguments and signals, and returns
// its exit code: os.Exit(daemon.Main(run)) is a whole main function.
func Main(run RunFunc) int {
	ctx, stop := Signals(context.Background(), os.Exit)
	defer stop()
	return run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
}

// Signals returns a context that the first SIGINT or SIGTERM ends, with
// ErrInterrupted as the cause; the second calls exit(ExitInterrupted). stop
// gives the signals back to the system.
func Signals(parent context.Context, exit func(int)) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	caught := make(chan os.Signal, 2)
	signal.Notify(caught, os.Interrupt, syscall.SIGTERM)
	ctx = context.WithValue(ctx, signalsKey{}, func() { signal.Stop(caught) })
	stopped := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		next := func() { cancel(ErrInterrupted) }
		for {
			select {
			case <-caught:
				next()
				next = func() { exit(ExitInterrupted) }
			case <-stopped:
				return
			}
		}
	})
	return ctx, sync.OnceFunc(func() {
		signal.Stop(caught)
		close(stopped)
		watching.Wait()
		cancel(nil)
	})
}

// signalsKey is where a context of Signals keeps how to let go of them.
type signalsKey struct{}

// disownSignals makes signals have no effect on ctx, or on this process, any more.
// A caller has asked to be notified of them itself.
func disownSignals(ctx context.Context) {
	if stop, ok := ctx.Value(signalsKey{}).(func()); ok {
		stop()
	}
}
