package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/ltxstream/ltxstream/testenv/app"
	"github.com/ltxstream/ltxstream/testenv/foreign"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

// followPoll is how often both followers look, and how often Litestream looks at
// the database and uploads.
const followPoll = "10ms"

// follow compares, in turns, ltx-sub and `litestream restore -f` as followers of a
// directory that Litestream writes: commit → visible to a fresh reader of another
// process, and what a reader that keeps its connection open sees.
func follow(ctx context.Context, b *bench) error {
	if !b.hasLitestream("following Litestream") {
		return nil
	}
	dir, err := b.scratch()
	if err != nil {
		return err
	}
	f := &following{bench: b, dir: dir, primary: filepath.Join(dir, "app.db"), archive: filepath.Join(dir, "backup", "app")}
	if err := prepare(ctx, f.primary); err != nil {
		return err
	}
	config := filepath.Join(dir, "litestream.yml")
	yaml := fmt.Sprintf("dbs:\n- path: %s\n  monitor-interval: %s\n  replica:\n    type: file\n    path: %s\n    sync-interval: %s\n", f.primary, followPoll, f.archive, followPoll)
	if err := os.WriteFile(config, []byte(yaml), 0o600); err != nil {
		return err
	}
	writer, err := spawn(b.litestream, "replicate", "-config", config)
	if err != nil {
		return err
	}
	fmt.Println("\n| follower of Litestream, 100 tx/s, polls every 10 ms | fresh reader p50 / p99 | long-lived reader |\n|---|---|---|")
	err = f.turns(ctx)
	return errors.Join(err, writer.end())
}

type following struct {
	*bench
	dir, primary, archive string
	seq                   int
}

func (f *following) turns(ctx context.Context) error {
	for range f.rounds {
		for name, args := range f.followers() {
			if err := f.one(ctx, name, args); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return nil
}

// followers yields each with the command that follows into a file.
func (f *following) followers() func(func(string, func(out string) []string) bool) {
	return func(yield func(string, func(string) []string) bool) {
		_ = yield("ltx-sub", func(out string) []string {
			return []string{filepath.Join(f.bin, "ltx-sub"), "run", "--no-stream", "--archive", filepath.Dir(f.archive), "--poll-interval", followPoll, "app=" + out}
		}) && yield("litestream restore -f", func(out string) []string {
			return []string{f.litestream, "restore", "-f", "-follow-interval", followPoll, "-o", out, "file://" + f.archive}
		})
	}
}

// one runs a follower under two readers while the application writes.
func (f *following) one(ctx context.Context, name string, args func(out string) []string) error {
	f.seq++
	out := filepath.Join(f.dir, fmt.Sprintf("follower%d.db", f.seq))
	command := args(out)
	p, err := spawn(command[0], command[1:]...)
	if err != nil {
		return err
	}
	fresh, lived, err := f.measure(ctx, out)
	if err := errors.Join(err, p.end()); err != nil {
		return fmt.Errorf("%w: %s", err, p.log.String())
	}
	fmt.Printf("| %s | %s | %s |\n", name, fresh, lived)
	return nil
}

// measure has one reader after the other look, so that they do not compete; what
// goes wrong with one is a result too.
func (f *following) measure(ctx context.Context, out string) (fresh, lived string, err error) {
	if err := exists(ctx, out); err != nil {
		return "", "", err
	}
	if fresh, err = f.underReader(ctx, foreign.Config{Action: foreign.Probe, Path: out, Fresh: true, Interval: 2 * time.Millisecond}); err != nil {
		return "", "", err
	}
	lived, err = f.underReader(ctx, foreign.Config{Action: foreign.Read, Path: out, Interval: 2 * time.Millisecond})
	return fresh, lived, err
}

func exists(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		if st, err := os.Stat(path); err == nil && st.Size() > 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.New("the follower made no database")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

const followPatience = 5 * time.Second

// underReader lets the application write while one reader looks, and says what that
// saw.
func (f *following) underReader(ctx context.Context, cfg foreign.Config) (string, error) {
	cfg.DB = sqlconn.Options{Mode: "ro", BusyTimeout: time.Second}
	reader, err := foreign.Start(cfg)
	if err != nil {
		return "", err
	}
	defer reader.Kill()
	if _, err := reader.WaitFor(ctx, func(r foreign.Report) bool { return r.Checks > 0 }); err != nil {
		return "fails: " + err.Error(), nil
	}
	writer, err := app.StartTraced(app.Config{Path: f.primary, DB: sqlconn.WAL(), Seed: uint64(f.seq), Rate: 100, Duration: f.span})
	if err != nil {
		return "", err
	}
	defer writer.Kill()
	done, err := writer.Result(ctx)
	if err != nil {
		return "", err
	}
	last := done.Report.LastSeq
	patient, cancel := context.WithTimeout(ctx, followPatience)
	defer cancel()
	r, err := reader.WaitFor(patient, func(r foreign.Report) bool { return r.LastSeq >= last })
	switch {
	case r.Violation != nil:
		return fmt.Sprintf("wrong after %d checks: %v", r.Checks, r.Violation), nil
	case err != nil:
		return fmt.Sprintf("stale: at transfer %d of %d, %s after the last (%d checks)", r.LastSeq, last, followPatience, r.Checks), nil
	case cfg.Action == foreign.Read:
		return fmt.Sprintf("%d checks, 0 wrong, 0 stale", r.Checks), nil
	}
	seen, err := reader.Finish(ctx)
	if err != nil {
		return "", err
	}
	lags, missing := foreign.Lags(done.Commits, seen.Seen)
	if missing > 0 {
		return "", fmt.Errorf("%d commits were never seen", missing)
	}
	slices.Sort(lags)
	return pq(lags), nil
}

// spawned is a program of somebody else's, or ours without a health endpoint.
type spawned struct {
	cmd *exec.Cmd
	log bytes.Buffer
}

func spawn(path string, args ...string) (*spawned, error) {
	p := &spawned{cmd: exec.Command(path, args...)}
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	return p, p.cmd.Start()
}

func (p *spawned) end() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	err := p.cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
		return nil // a code of its own for a signal
	}
	return err
}
