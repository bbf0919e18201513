package child

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// nested starts a sleeper of its own, says its pid and waits: for the test that kills the one in the middle.
func nested(ctx context.Context, _ json.RawMessage, out *Output) error {
	p, err := Start("sleep", nil, nil)
	if err != nil {
		return err
	}
	if err := out.Send(p.PID()); err != nil {
		return err
	}
	return p.Wait(ctx)
}

func TestMain(m *testing.M) {
	Dispatch(Jobs{
		"echo": func(_ context.Context, spec json.RawMessage, out *Output) error { return out.Send(spec) },
		"fail": func(context.Context, json.RawMessage, *Output) error { return errors.New("no luck") },
		"sleep": func(ctx context.Context, _ json.RawMessage, out *Output) error {
			<-ctx.Done()
			return out.Send("woken")
		},
		"nested": nested,
	})
	goleak.VerifyTestMain(m)
}

type lines struct {
	mu sync.Mutex
	s  []string
}

func (l *lines) add(b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.s = append(l.s, strings.TrimSpace(string(b)))
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.s, "|")
}

func start(t *testing.T, name string, spec any) (*Process, *lines) {
	t.Helper()
	var l lines
	p, err := Start(name, spec, l.add)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p, &l
}

func TestChildGetsSpecAndSendsLines(t *testing.T) {
	t.Parallel()
	p, l := start(t, "echo", map[string]int{"a": 1})
	if err := p.Wait(soon(t)); err != nil {
		t.Fatal(err)
	}
	if got := l.String(); got != `{"a":1}` {
		t.Fatalf("got %q", got)
	}
}

func TestErrorCarriesStandardError(t *testing.T) {
	t.Parallel()
	p, _ := start(t, "fail", nil)
	if err := p.Wait(soon(t)); err == nil || !strings.Contains(err.Error(), "no luck") {
		t.Fatalf("got %v", err)
	}
}

func TestUnknownJobFails(t *testing.T) {
	t.Parallel()
	p, _ := start(t, "nothing", nil)
	if err := p.Wait(soon(t)); err == nil {
		t.Fatal("an unknown job ended well")
	}
}

func TestStopEndsJobCleanly(t *testing.T) {
	t.Parallel()
	p, l := start(t, "sleep", nil)
	if err := p.Stop(soon(t)); err != nil {
		t.Fatal(err)
	}
	if l.String() != `"woken"` {
		t.Fatalf("last words %q", l)
	}
}

func TestKillIsSigkill(t *testing.T) {
	t.Parallel()
	p, l := start(t, "sleep", nil)
	p.Kill()
	exit, ok := errors.AsType[*exec.ExitError](p.Err())
	if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL || l.String() != "" {
		t.Fatalf("got %v, said %q", p.Err(), l)
	}
}

// A grandchild must not survive the SIGKILL of its parent.
func TestChildEndsWithKilledParent(t *testing.T) {
	t.Parallel()
	p, l := start(t, "nested", nil)
	pid := 0
	await(t, func() bool { _, err := fmt.Sscan(l.String(), &pid); return err == nil })
	p.Kill()
	await(t, func() bool { return !alive(pid) })
}

// alive reports whether the process exists and is not a zombie that nobody has waited for yet.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, after, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(after, "Z")
}

func await(t *testing.T, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for !cond() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("condition not met in time")
		}
	}
}

// soon is a context for what should take a moment.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}
