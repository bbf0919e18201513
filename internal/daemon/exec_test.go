package daemon

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// execEnv makes this test program a daemon with a command, for the tests of Exec:
// its exit code and its signals are those of a whole process.
const execEnv = "LTX_TEST_EXEC"

// graceEnv is how long its command may take to end.
const graceEnv = "LTX_TEST_EXEC_GRACE"

// runExec is that daemon. Its standard input is where tests say "ready" and "fail".
func runExec(ctx context.Context, _ []string, stdin io.Reader, _, stderr io.Writer) int {
	said := make(chan string, 8)
	go func() {
		for lines := bufio.NewScanner(stdin); lines.Scan(); {
			said <- lines.Text()
		}
	}()
	_ = os.WriteFile("up", []byte("\n"), 0o644) // signals are ours now
	fail, ready := make(chan struct{}), make(chan struct{})
	go func() {
		for word := range said {
			close(map[string]chan struct{}{"ready": ready, "fail": fail}[word])
		}
	}()
	grace, err := time.ParseDuration(os.Getenv(graceEnv))
	if err != nil {
		return Report(stderr, "daemon", err)
	}
	err = Exec(ctx, ExecConfig{
		Command: os.Getenv(execEnv), Logger: slog.New(slog.DiscardHandler), Grace: grace,
		Serve: func(ctx context.Context) error {
			select {
			case <-ctx.Done():
				fmt.Fprintln(stderr, "served")
				return nil
			case <-fail:
				return Exit(ExitGap, errors.New("serve failed"), "")
			}
		},
		Ready: func() error {
			select {
			case <-ready:
				return nil
			default:
				return errors.New("not yet")
			}
		},
	})
	return Report(stderr, "daemon", err)
}

// execDaemon is such a process.
type execDaemon struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.WriteCloser
	errs  strings.Builder
	dir   string // where its command says things, in files
}

func startExec(t *testing.T, command string) *execDaemon {
	t.Helper()
	return startExecWithin(t, command, 30*time.Second)
}

// startExecWithin gives the command so long to end.
func startExecWithin(t *testing.T, command string, grace time.Duration) *execDaemon {
	t.Helper()
	d := &execDaemon{t: t, dir: t.TempDir(), cmd: exec.Command(os.Args[0], "-test.run=^$")}
	d.cmd.Dir = d.dir
	d.cmd.Env = append(os.Environ(), execEnv+"="+command, graceEnv+"="+grace.String(), "GORACE=atexit_sleep_ms=0")
	d.cmd.Stderr = &d.errs
	var err error
	if d.stdin, err = d.cmd.StdinPipe(); err == nil {
		err = d.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.cmd.Process.Kill(); _ = d.cmd.Wait() })
	return d
}

func (d *execDaemon) say(word string) {
	d.t.Helper()
	if _, err := fmt.Fprintln(d.stdin, word); err != nil {
		d.t.Fatal(err)
	}
}

// file waits until a file is there and ends with a line, and returns it.
func (d *execDaemon) file(name string) string {
	d.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; <-time.After(5 * time.Millisecond) {
		b, err := os.ReadFile(filepath.Join(d.dir, name))
		if err == nil && strings.HasSuffix(string(b), "\n") {
			return strings.TrimSpace(string(b))
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("%s: %v %q", name, err, b)
		}
	}
}

// ends waits for the end and checks the exit code.
func (d *execDaemon) ends(code int) {
	d.t.Helper()
	timeout := time.AfterFunc(time.Minute, func() { _ = d.cmd.Process.Kill() })
	defer timeout.Stop()
	_ = d.cmd.Wait()
	if got := d.cmd.ProcessState.ExitCode(); got != code {
		d.t.Fatalf("exit code %d (%s), want %d; it said %q", got, d.cmd.ProcessState, code, d.errs.String())
	}
}

// gone waits until a process is.
func gone(t *testing.T, pid string) {
	t.Helper()
	n, err := strconv.Atoi(pid)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; <-time.After(5 * time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", n))
		if err != nil || strings.Contains(string(stat), ") Z ") || syscall.Kill(n, 0) != nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d goes on", n)
		}
	}
}

func TestExecEndsWithItsCommand(t *testing.T) {
	t.Parallel()
	for command, code := range map[string]int{
		"sh -c 'exit 0'":                  0,
		"sh -c 'exit 37'":                 37,
		`sh -c "kill -9 \$\$"`:            128 + 9,
		"sh -c 'trap \"exit 5\" 0; true'": 5,
	} {
		d := startExec(t, command)
		d.say("ready")
		d.ends(code)
		if !strings.Contains(d.errs.String(), "served") {
			t.Errorf("%s: the daemon's own work was not ended: %q", command, d.errs.String())
		}
	}
}

func TestExecWaitsUntilReady(t *testing.T) {
	t.Parallel()
	d := startExec(t, "sh -c 'echo $$ > pid; sleep 60'")
	d.file("up")
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil { // while it waits, signals are its own
		t.Fatal(err)
	}
	d.ends(0)
	if _, err := os.Stat(filepath.Join(d.dir, "pid")); err == nil {
		t.Error("the command ran before anything was ready")
	}
}

// TestExecForwardsSignals: each signal reaches the command, which alone decides
// about the end.
func TestExecForwardsSignals(t *testing.T) {
	t.Parallel()
	d := startExec(t, `sh -c 'for s in HUP INT QUIT USR1 USR2 WINCH; do trap "echo $s > $s" $s; done; trap "echo TERM > TERM; exit 9" TERM; echo $$ > pid; while :; do sleep 0.01; done'`)
	d.say("ready")
	d.file("pid")
	for _, s := range []struct {
		name   string
		signal syscall.Signal
	}{
		{"HUP", syscall.SIGHUP}, {"INT", syscall.SIGINT}, {"QUIT", syscall.SIGQUIT}, {"USR1", syscall.SIGUSR1},
		{"USR2", syscall.SIGUSR2}, {"WINCH", syscall.SIGWINCH}, {"INT", syscall.SIGINT}, {"TERM", syscall.SIGTERM},
	} {
		_ = os.Remove(filepath.Join(d.dir, s.name))
		if err := d.cmd.Process.Signal(s.signal); err != nil {
			t.Fatal(err)
		}
		d.file(s.name)
	}
	d.ends(9)
}

// TestExecIsNotOrphaned: however the daemon ends, its command does.
func TestExecIsNotOrphaned(t *testing.T) {
	t.Parallel()
	const deaf = `sh -c 'trap "" TERM HUP INT; echo $$ > pid; while :; do sleep 0.01; done'`
	killed := startExec(t, deaf)
	killed.say("ready")
	pid := killed.file("pid")
	if err := killed.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	gone(t, pid)

	failed := startExecWithin(t, deaf, 200*time.Millisecond)
	failed.say("ready")
	pid = failed.file("pid")
	failed.say("fail")
	failed.ends(128 + 9) // it had its time
	if !strings.Contains(failed.errs.String(), "serve failed") {
		t.Errorf("it said %q", failed.errs.String())
	}
	gone(t, pid)
}

func TestExecServeFails(t *testing.T) {
	t.Parallel()
	early := startExec(t, "sh -c 'echo $$ > pid'")
	early.say("fail")
	early.ends(ExitGap)
	if _, err := os.Stat(filepath.Join(early.dir, "pid")); err == nil {
		t.Error("the command ran")
	}
	late := startExec(t, `sh -c 'trap "exit 0" TERM; echo $$ > pid; while :; do sleep 0.01; done'`)
	late.say("ready")
	late.file("pid")
	late.say("fail")
	late.ends(ExitGap)
}

func TestExecBadCommand(t *testing.T) {
	t.Parallel()
	for command, code := range map[string]int{"  ": ExitUsage, "sh 'x": ExitUsage, "./no-such-command": ExitNotFound} {
		d := startExec(t, command)
		d.ends(code)
		if !strings.Contains(d.errs.String(), "nothing was done") {
			t.Errorf("%q: it said %q", command, d.errs.String())
		}
	}
}
