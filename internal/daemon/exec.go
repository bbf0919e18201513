package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/mattn/go-shellwords"
)

// ExecConfig says which command runs beside a daemon. All fields but Grace are
// required.
type ExecConfig struct {
	// Command is split into words as a shell would, quotes and backslashes
	// included; nothing is expanded.
	Command string
	// Serve is the daemon's own work: it ends with nil soon after ctx does.
	Serve func(ctx context.Context) error
	// Ready returns nil once the command may begin; it is asked often.
	Ready  func() error
	Logger *slog.Logger
	// Grace is how long the command may take to end after SIGTERM before it is
	// killed, default 10 s. It gets SIGTERM only where Serve fails.
	Grace time.Duration
}

const (
	defaultGrace = 10 * time.Second
	askReady     = 10 * time.Millisecond
)

// Exec runs cfg.Serve, and the command from when that is ready on. It returns when
// both have ended. The command has this process's standard input and outputs, and
// gets all signals that this process gets; its end ends Serve, and its exit code
// is that of the error (128 and the signal's number where that ended it). Where
// Serve fails the command is ended. On Linux it dies with this process, however
// that ends.
func Exec(ctx context.Context, cfg ExecConfig) error {
	words, err := shellwords.Parse(cfg.Command)
	if err != nil || len(words) == 0 {
		return Exit(ExitUsage, fmt.Errorf("command %q: %w", cfg.Command, errors.Join(err, errNoWords(words))), "nothing was done")
	}
	path, err := exec.LookPath(words[0])
	if err != nil {
		return Exit(ExitNotFound, err, "nothing was done")
	}
	served, stopServe := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopServe(nil)
	ended := make(chan error, 1)
	go func() { ended <- cfg.Serve(served) }()
	if err, early := cfg.awaitReady(ctx, ended); early {
		stopServe(context.Cause(ctx))
		if err == nil {
			err = <-ended
		}
		return err
	}
	c := newChild(path, words)
	defer signal.Stop(c.signals)
	c.start(ctx)
	cfg.Logger.Info("command started", "command", words[0])
	failed := c.accompany(ctx, ended, cfg)
	stopServe(nil)
	if failed == nil {
		failed = <-ended
	}
	return errors.Join(c.exit(), failed)
}

func errNoWords(words []string) error {
	if len(words) == 0 {
		return errors.New("it is empty")
	}
	return nil
}

// awaitReady waits for cfg.Ready. early: Serve ended before, with err, or ctx did.
func (cfg ExecConfig) awaitReady(ctx context.Context, ended <-chan error) (err error, early bool) {
	tick := time.NewTicker(askReady)
	defer tick.Stop()
	for cfg.Ready() != nil {
		select {
		case err := <-ended:
			if err == nil {
				err = errors.New("ended before the command was started")
			}
			return err, true
		case <-ctx.Done():
			return nil, true
		case <-tick.C:
		}
	}
	return nil, false
}

// child is the command. Its process belongs to one goroutine, whose thread stays:
// Linux ends a child that asked for it with the thread that made it.
type child struct {
	cmd     *exec.Cmd
	signals chan os.Signal
	started chan struct{} // closed once it runs, or cannot
	done    chan struct{}
	err     error // set before done is closed
}

func newChild(path string, words []string) *child {
	c := &child{cmd: exec.Command(path, words[1:]...), signals: make(chan os.Signal, 64), started: make(chan struct{}), done: make(chan struct{})}
	c.cmd.Args[0] = words[0]
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.cmd.SysProcAttr = dieWithParent()
	return c
}

// start starts the command; from here on signals are its own.
func (c *child) start(ctx context.Context) {
	signal.Notify(c.signals)
	signal.Reset(notForwarded...)
	disownSignals(ctx)
	go func() {
		defer close(c.done)
		runtime.LockOSThread()
		c.err = c.cmd.Start()
		close(c.started)
		if c.err == nil {
			c.err = c.cmd.Wait()
		}
	}()
	<-c.started
}

// notForwarded are signals that mean this process alone, or that a terminal sends
// to both.
var notForwarded = []os.Signal{
	syscall.SIGCHLD, syscall.SIGURG, syscall.SIGPIPE, syscall.SIGTSTP, syscall.SIGCONT, syscall.SIGTTIN, syscall.SIGTTOU,
}

// accompany forwards signals until the command has ended. It returns the error of
// a Serve that ended before it.
func (c *child) accompany(ctx context.Context, ended <-chan error, cfg ExecConfig) (failed error) {
	onTerminal := IsTerminal(os.Stdin)
	stop := ctx.Done()
	var kill <-chan time.Time
	for {
		select {
		case <-c.done:
			return failed
		case s := <-c.signals:
			if !onTerminal || s != syscall.SIGINT && s != syscall.SIGQUIT {
				c.signal(s)
			}
		case <-kill:
			c.signal(os.Kill)
		case <-stop: // not by a signal, or by one that came before the command
			stop, kill = nil, c.terminate(cfg)
		case failed = <-ended:
			if failed == nil {
				failed = errors.New("ended before the command")
			}
			cfg.Logger.Error("the command is ended", "err", failed)
			ended, kill = nil, c.terminate(cfg)
		}
	}
}

// terminate asks the command to end, and returns what tells that it had its time.
func (c *child) terminate(cfg ExecConfig) <-chan time.Time {
	grace := cfg.Grace
	if grace == 0 {
		grace = defaultGrace
	}
	c.signal(syscall.SIGTERM)
	return time.After(grace)
}

// signal signals the command if it runs; one that has ended is left alone.
func (c *child) signal(s os.Signal) {
	if c.cmd.Process != nil {
		_ = c.cmd.Process.Signal(s)
	}
}

// exit is how the command ended, with its exit code.
func (c *child) exit() error {
	if c.err == nil {
		return nil
	}
	code := ExitFailure
	if e, ok := errors.AsType[*exec.ExitError](c.err); ok {
		code = e.ExitCode()
		if status, ok := e.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			code = 128 + int(status.Signal())
		}
	}
	return Exit(code, fmt.Errorf("%s: %w", c.cmd.Args[0], c.err), "")
}
