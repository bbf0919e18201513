package foreign

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/ltxstream/ltxstream/testenv/bank"
)

// CLI runs sql in a fresh sqlite3 shell on path and returns what it printed, in list mode. A busyTimeout of 0 fails at once
// when the database is locked. The process ends with ctx.
func CLI(ctx context.Context, path, sql string, busyTimeout time.Duration) (string, error) {
	timeout := ".timeout " + strconv.FormatInt(busyTimeout.Milliseconds(), 10)
	cmd := exec.CommandContext(ctx, "sqlite3", "-batch", "-bail", "-init", "/dev/null", "-cmd", timeout, path, sql)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("run sqlite3: %w: %s", err, strings.TrimSpace(errs.String()))
	}
	return strings.TrimSpace(out.String()), nil
}

// CLICheck reads the bank with a fresh sqlite3 shell and verifies it.
func CLICheck(ctx context.Context, path string) (bank.State, error) {
	out, err := CLI(ctx, path, bank.CheckSQL, 0)
	if err != nil {
		return bank.State{}, err
	}
	var s bank.State
	_, err = fmt.Sscanf(strings.ReplaceAll(out, "|", " "), "%d %d %d %d %d %d %d %d %d", &s.Seq, &s.Total, &s.Touched,
		&s.Accounts, &s.SumBalance, &s.SumTouched, &s.MaxTouched, &s.CountAccounts, &s.LastTransfer)
	if err != nil {
		return bank.State{}, fmt.Errorf("read bank from %q: %w", out, err)
	}
	return s, s.Verify()
}
