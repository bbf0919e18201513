package child

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
)

// Process is one running child. Its methods are safe for concurrent use.
type Process struct {
	cmd   *exec.Cmd
	stdin io.Closer
	errs  tail
	done  chan struct{} // closed when the process was waited for
	err   error         // set before done is closed
}

// Start runs this executable as the named job of its Dispatch. spec goes to it as JSON; onLine is called, on a goroutine of the
// Process, with each line the job sends (the slice is valid during the call only; nil means they are dropped).
func Start(name string, spec any, onLine func([]byte)) (*Process, error) {
	b, err := json.Marshal(spec)
	if err != nil {
		return nil, fmt.Errorf("start child %s: %w", name, err)
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("start child %s: %w", name, err)
	}
	cmd := exec.Command(exe)
	// The race detector otherwise waits a second at every exit.
	cmd.Env = append([]string{"GORACE=atexit_sleep_ms=0"}, os.Environ()...)
	cmd.Env = append(cmd.Env, envJob+"="+name, envSpec+"="+string(b))
	return StartCommand(cmd, onLine)
}

// StartCommand runs cmd, which must end when its standard input does, in the same way.
func StartCommand(cmd *exec.Cmd, onLine func([]byte)) (*Process, error) {
	p := &Process{cmd: cmd, done: make(chan struct{})}
	cmd.Stderr = &p.errs
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	p.stdin = stdin
	go p.follow(stdout, onLine)
	return p, nil
}

// follow owns the end of the process: all its output is read before it is waited for.
func (p *Process) follow(stdout io.Reader, onLine func([]byte)) {
	defer close(p.done)
	lines := bufio.NewReaderSize(stdout, 64<<10)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 && onLine != nil && err == nil { // a line without its end is of a killed process
			onLine(line)
		}
		if err != nil {
			break
		}
	}
	if err := p.cmd.Wait(); err != nil {
		p.err = fmt.Errorf("child %d: %w%s", p.cmd.Process.Pid, err, p.errs.suffix())
	}
}

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed once the process has ended and all it sent was handed over.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err is nil before the end and after a clean exit, and else says how it ended, with the end of its standard error.
func (p *Process) Err() error {
	select {
	case <-p.done:
		return p.err
	default:
		return nil
	}
}

// Kill ends the process with SIGKILL and returns when it is gone. One that has ended already is left alone.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
	_ = p.stdin.Close()
}

// Signal sends a signal to the process.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Wait returns when the process has ended (its Err) or ctx has.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Stop asks the process to end, by the end of its input, and waits. When ctx ends first, it is killed.
func (p *Process) Stop(ctx context.Context) error {
	_ = p.stdin.Close()
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		p.Kill()
		return context.Cause(ctx)
	}
}

// tail keeps the last few kilobytes written to it.
type tail struct {
	mu struct {
		sync.Mutex
		b []byte
	}
}

const tailSize = 8 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.b = append(t.mu.b, b...)
	if n := len(t.mu.b) - tailSize; n > 0 {
		t.mu.b = t.mu.b[n:]
	}
	return len(b), nil
}

func (t *tail) suffix() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := strings.TrimSpace(string(t.mu.b)); s != "" {
		return ": " + s
	}
	return ""
}
