package main

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/ltxstream/ltxstream/testenv/pace"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

// archiveLag writes to many databases at 1,000 transactions a second in all, and
// measures how long after the stream has a file the archive has it.
func archiveLag(ctx context.Context, b *bench) error {
	for _, n := range []int{200, 1} {
		if err := b.archiveLagOf(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

const archiveRate = 1000 // transactions per second, of all databases

func (b *bench) archiveLagOf(ctx context.Context, n int) error {
	dir, err := b.scratch()
	if err != nil {
		return err
	}
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	args := []string{"--embedded", filepath.Join(dir, "nats"), "--embedded-listen", addr, "--embedded-sync-interval", "2m"}
	var paths []string
	for i := range n {
		path := filepath.Join(dir, fmt.Sprintf("d%04d.db", i))
		if err := execute(ctx, path, "CREATE TABLE t(id INTEGER PRIMARY KEY, a)"); err != nil {
			return err
		}
		paths = append(paths, path)
	}
	pub, err := b.start(ctx, "ltx-pub", append(args, paths...)...)
	if err != nil {
		return err
	}
	arch, err := b.start(ctx, "ltx-archive", "--server", "nats://"+addr, "--to", filepath.Join(dir, "archive"))
	if err != nil {
		return errors.Join(err, pub.stop())
	}
	if err := arch.archivesAll(ctx, n); err != nil {
		return errors.Join(err, arch.stop(), pub.stop())
	}
	span := 6 * b.span // several flushes
	if err := writeAll(ctx, paths, float64(archiveRate)/float64(n), span); err != nil {
		return err
	}
	time.Sleep(12 * time.Second) // the last flush
	p50, p99, files, err := arch.lag()
	if err != nil {
		return err
	}
	rss := arch.memory("VmHWM")
	if err := errors.Join(arch.stop(), pub.stop()); err != nil {
		return err
	}
	fmt.Printf("\narchive lag, %d databases, %d tx/s in all for %s, flush every 10 s: p50 ≤ %.1f s, p99 ≤ %.1f s (of %d files); peak memory of ltx-archive %.0f MiB\n",
		n, archiveRate, span, p50, p99, files, mib(rss))
	return nil
}

// archivesAll waits until each of n databases is in the archive: what a start costs
// is not part of the lag.
func (p *program) archivesAll(ctx context.Context, n int) error {
	return p.wait(ctx, func() bool {
		var all [][]struct {
			State    string `json:"state"`
			Archived string `json:"archived"`
		}
		if p.get("/status", &all) != nil {
			return false
		}
		at := 0
		for _, lane := range slices.Concat(all...) {
			if lane.State == "archiving" && strings.Trim(lane.Archived, "0") != "" {
				at++
			}
		}
		return at >= n
	})
}

// writeAll writes small transactions to all databases at a rate each.
func writeAll(ctx context.Context, paths []string, rate float64, span time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, span)
	defer cancel()
	errs := make([]error, len(paths))
	var writers sync.WaitGroup
	for i, path := range paths {
		writers.Go(func() { errs[i] = writeOne(ctx, path, rate) })
	}
	writers.Wait()
	return errors.Join(errs...)
}

func writeOne(ctx context.Context, path string, rate float64) error {
	plain := context.WithoutCancel(ctx)
	db, err := sqlconn.OpenOne(plain, path, sqlconn.WAL())
	if err != nil {
		return err
	}
	defer db.Close()
	p := pace.NewPacer(rate)
	for {
		if _, ok := p.Wait(ctx); !ok {
			return nil
		}
		if _, err := db.ExecContext(plain, "INSERT INTO t(a) VALUES (randomblob(200))"); err != nil {
			return err
		}
	}
}

// lag reads the upper bounds of two quantiles from the archiver's histogram.
func (p *program) lag() (p50, p99 float64, files uint64, err error) {
	resp, err := http.Get("http://" + p.http + "/metrics")
	if err != nil {
		return 0, 0, 0, err
	}
	defer resp.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(resp.Body)
	if err != nil {
		return 0, 0, 0, err
	}
	family := families["ltx_archive_file_lag_seconds"]
	if family == nil {
		return 0, 0, 0, errors.New("no metric ltx_archive_file_lag_seconds")
	}
	sums := map[float64]uint64{}
	var bounds []float64
	for _, m := range family.Metric {
		files += m.GetHistogram().GetSampleCount()
		for _, bucket := range m.GetHistogram().Bucket {
			if _, seen := sums[bucket.GetUpperBound()]; !seen {
				bounds = append(bounds, bucket.GetUpperBound())
			}
			sums[bucket.GetUpperBound()] += bucket.GetCumulativeCount()
		}
	}
	quantile := func(q float64) float64 {
		for _, bound := range bounds {
			if float64(sums[bound]) >= q*float64(files) {
				return bound
			}
		}
		return 0
	}
	return quantile(0.5), quantile(0.99), files, nil
}

// restoreSpeed restores a database from a directory and copies it with cp, in
// turns.
func restoreSpeed(ctx context.Context, b *bench) error {
	dir, err := b.scratch()
	if err != nil {
		return err
	}
	primary := filepath.Join(dir, "app.db")
	if err := fillTable(ctx, primary, b.bulkMiB); err != nil {
		return err
	}
	pub, url, err := b.publish(ctx, dir, primary, "--embedded-sync-interval", "2m")
	if err != nil {
		return err
	}
	archive := filepath.Join(dir, "archive")
	arch, err := b.start(ctx, "ltx-archive", "--server", url, "--to", archive, "--flush", "1s")
	if err != nil {
		return errors.Join(err, pub.stop())
	}
	if err := increments(ctx, b, url, primary); err != nil {
		return errors.Join(err, arch.stop(), pub.stop())
	}
	if err := errors.Join(arch.stop(), pub.stop()); err != nil {
		return err
	}
	fmt.Printf("\narchiving %d MiB: peak memory of ltx-archive %.0f MiB\n", b.bulkMiB, mib(arch.peak))
	if err := execute(ctx, primary, "PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
		return err
	}
	st, err := os.Stat(primary)
	if err != nil {
		return err
	}
	return b.compareRestore(ctx, dir, archive, primary, float64(st.Size())/1e6)
}

func (b *bench) compareRestore(ctx context.Context, dir, archive, primary string, mb float64) error {
	fmt.Printf("\n| restore of %.0f MB | cp | cp + sync | ltx-archive | peak memory |\n|---|---|---|---|---|\n", mb)
	out := filepath.Join(dir, "out.db")
	for range b.rounds {
		cp, _, err := timed(ctx, "cp", primary, out)
		if err != nil {
			return err
		}
		synced, _, err := timed(ctx, "sync", out)
		if err != nil {
			return err
		}
		if err := os.Remove(out); err != nil {
			return err
		}
		took, peak, err := timed(ctx, filepath.Join(b.bin, "ltx-archive"), "restore", archive, name(primary), out, "--no-stream", "--integrity-check", "none")
		if err != nil {
			return err
		}
		if err := os.Remove(out); err != nil {
			return err
		}
		fmt.Printf("| | %.0f MB/s | %.0f MB/s | %.0f MB/s | %.0f MiB |\n", mb/cp.Seconds(), mb/(cp+synced).Seconds(), mb/took.Seconds(), mib(peak))
	}
	return nil
}

// timed runs a command and returns how long it took and its peak memory.
func timed(ctx context.Context, command string, args ...string) (time.Duration, int64, error) {
	cmd := exec.CommandContext(ctx, command, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.Discard, &out
	began := time.Now()
	if err := cmd.Run(); err != nil {
		return 0, 0, fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, out.String())
	}
	took := time.Since(began)
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		return took, usage.Maxrss << 10, nil
	}
	return took, 0, nil
}

// fillTable writes rows of text and random bytes, some MiB of them.
func fillTable(ctx context.Context, path string, size int) error {
	db, err := sqlconn.OpenOne(ctx, path, sqlconn.WAL())
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err := db.ExecContext(ctx, "CREATE TABLE rows(id INTEGER PRIMARY KEY, name TEXT, body BLOB)"); err != nil {
		return err
	}
	for range size {
		err := inTx(ctx, db, `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1750)
			INSERT INTO rows(name, body) SELECT printf('a name of some length, number %d of the table', i), randomblob(220) || zeroblob(260) FROM n`)
		if err != nil {
			return err
		}
	}
	return nil
}

func inTx(ctx context.Context, db *sql.DB, statement string) error {
	_, err := db.ExecContext(ctx, statement)
	return err
}

// increments changes some of the rows thirty times, each acknowledged and
// flushed.
func increments(ctx context.Context, b *bench, url, primary string) error {
	for range 30 {
		if err := execute(ctx, primary, "UPDATE rows SET name = name || '.' WHERE id IN (SELECT abs(random()) % (SELECT max(id) FROM rows) FROM rows LIMIT 3000)"); err != nil {
			return err
		}
		if _, _, err := timed(ctx, filepath.Join(b.bin, "ltx-pub"), "sync", "--timeout", "2m", "--server", url, name(primary)); err != nil {
			return err
		}
		time.Sleep(1200 * time.Millisecond)
	}
	return nil
}
