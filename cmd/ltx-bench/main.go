package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"time"

	"github.com/ltxstream/ltxstream/testenv/app"
	"github.com/ltxstream/ltxstream/testenv/child"
	"github.com/ltxstream/ltxstream/testenv/foreign"
)

func main() {
	jobs := child.Jobs{tinyJob: tiny, bulkJob: bulk, compactJob: compact}
	for _, more := range []child.Jobs{app.Jobs(), foreign.Jobs()} {
		for name, job := range more {
			jobs[name] = job
		}
	}
	child.Dispatch(jobs)
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "ltx-bench:", err)
		os.Exit(1)
	}
}

// bench is what every measurement gets.
type bench struct {
	bin     string        // directory of the programs
	dir     string        // scratch
	span    time.Duration // of one measurement
	rounds  int           // of a comparison
	bulkMiB int
	idle    int // databases
	wal     time.Duration

	litestream string // path of the program
}

type measurement struct {
	name string
	run  func(context.Context, *bench) error
}

func run(ctx context.Context, args []string) error {
	b := &bench{}
	flags := flag.NewFlagSet("ltx-bench", flag.ContinueOnError)
	flags.StringVar(&b.bin, "bin", "bin", "directory of ltx-pub, ltx-sub and ltx-archive")
	only := flags.String("run", ".", "measurements to run, a regular expression: lag, cost, wal, throughput, bulk, idle, archive, restore, compact, litestream, follow")
	flags.DurationVar(&b.span, "span", 10*time.Second, "length of one measurement")
	flags.IntVar(&b.rounds, "rounds", 5, "rounds of a paired comparison")
	flags.IntVar(&b.bulkMiB, "bulk", 1024, "MiB of the bulk transaction, and of the databases that are restored")
	flags.IntVar(&b.idle, "idle", 1000, "idle databases")
	flags.StringVar(&b.litestream, "litestream", ".servers/bin/litestream-v0.5.18", "path of Litestream, for the measurements litestream and follow")
	flags.DurationVar(&b.wal, "wal", 100*time.Second, "length of the saturation that must keep the WAL small")
	if err := flags.Parse(args); err != nil {
		return err
	}
	match, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	if b.bin, err = filepath.Abs(b.bin); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "ltx-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	fmt.Printf("%s, %s/%s, %d cores, %s\n", time.Now().UTC().Format(time.DateOnly), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version())
	var errs []error
	for _, m := range []measurement{{"lag", lag}, {"cost", cost}, {"wal", walBound}, {"throughput", throughput}, {"bulk", bulkTransaction}, {"idle", idle}, {"archive", archiveLag}, {"restore", restoreSpeed}, {"compact", compaction}, {"litestream", besideLitestream}, {"follow", follow}} {
		if match.MatchString(m.name) && ctx.Err() == nil {
			if err := m.run(ctx, b); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", m.name, err))
			}
		}
	}
	return errors.Join(errs...)
}

func (b *bench) scratch() (string, error) { return os.MkdirTemp(b.dir, "") }
