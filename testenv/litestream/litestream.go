package litestream

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/testenv/child"
	"github.com/ltxstream/ltxstream/testenv/storage"
)

// Version is one that `make servers` builds.
type Version string

// The versions, each with what it stands for.
const (
	Current     Version = "v0.5.18"
	NoChecksums Version = "v0.5.17" // refuses files with database checksums
	Generations Version = "v0.3.13" // the last one that writes generations
)

// Path is where the binary is.
func (v Version) Path(t testing.TB) string {
	t.Helper()
	return storage.Find(t, "bin/litestream-"+string(v))
}

// timeout bounds one command.
const timeout = 2 * time.Minute

// Run runs a command to its end and returns what it printed; env is added to the
// environment. The error has what it logged.
func (v Version) Run(t testing.TB, env []string, args ...string) (stdout string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, v.Path(t), args...)
	cmd.Env = append(os.Environ(), env...)
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	if err = cmd.Run(); err != nil {
		err = fmt.Errorf("litestream %v: %w\n%s%s", args, err, out.String(), log.String())
	}
	return out.String(), err
}

// MustRun is Run for a command that has to succeed.
func (v Version) MustRun(t testing.TB, env []string, args ...string) (stdout string) {
	t.Helper()
	out, err := v.Run(t, env, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Start runs a command that goes on, replicate for example, until the end of the
// test; after Stop it has uploaded what it had.
func (v Version) Start(t testing.TB, env []string, args ...string) *child.Process {
	t.Helper()
	cmd := exec.Command(v.Path(t), args...)
	cmd.Env = append(os.Environ(), env...)
	p, err := child.StartForeign(cmd, syscall.SIGTERM, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { Stop(t, p) })
	return p
}

// Stop ends what Start started, and returns when it has uploaded everything.
func Stop(t testing.TB, p *child.Process) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), timeout)
	defer cancel()
	_ = p.Stop(ctx) // its exit code says that it got a signal
}

// Config writes a configuration file for this test and returns its path.
func Config(t testing.TB, yaml string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "litestream.yml")
	if err := os.WriteFile(path, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
