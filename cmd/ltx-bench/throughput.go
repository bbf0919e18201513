package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"path/filepath"
	"time"

	"github.com/ltxstream/ltxstream/testenv/child"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

// throughput saturates a database with tiny transactions until the replica has
// them all.
func throughput(ctx context.Context, b *bench) error {
	dir, err := b.scratch()
	if err != nil {
		return err
	}
	primary := filepath.Join(dir, "app.db")
	if err := execute(ctx, primary, "CREATE TABLE tiny(id INTEGER PRIMARY KEY, n); INSERT INTO tiny VALUES (1, 0)"); err != nil {
		return err
	}
	p, err := b.startPair(ctx, dir, primary, "--embedded-sync-interval", "2m")
	if err != nil {
		return err
	}
	reports := child.NewReports(tinyReport{}, nil)
	began := time.Now()
	w, err := child.Start(tinyJob, tinySpec{primary, b.span}, reports.Line)
	if err != nil {
		return err
	}
	defer w.Kill()
	if err := w.Wait(ctx); err != nil {
		return err
	}
	r, err := reports.Last()
	if err != nil {
		return err
	}
	if err := p.caughtUp(ctx); err != nil {
		return err
	}
	took := time.Since(began)
	st, err := p.pub.status()
	if err != nil {
		return err
	}
	fmt.Printf("\nthroughput: %d transactions in %s end to end: %.0f tx/s (%d LTX files)\n", r.Commits, took.Round(time.Millisecond), float64(r.Commits)/took.Seconds(), st.PublishedFiles)
	return p.stop()
}

func execute(ctx context.Context, path, query string) error {
	db, err := sqlconn.OpenOne(ctx, path, sqlconn.WAL())
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = db.ExecContext(ctx, query)
	return err
}

type bulkSpec struct {
	Path string
	MiB  int
}

// bulk writes one transaction of random blobs.
func bulk(ctx context.Context, raw json.RawMessage, _ *child.Output) error {
	var spec bulkSpec
	if err := json.Unmarshal(raw, &spec); err != nil {
		return err
	}
	db, err := sqlconn.OpenOne(ctx, spec.Path, sqlconn.WAL())
	if err != nil {
		return err
	}
	defer db.Close()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	for range spec.MiB {
		if _, err := tx.ExecContext(ctx, "INSERT INTO bulk VALUES (randomblob(1048000))"); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// bulkTransaction measures one transaction of bulkMiB from its commit until the
// replica shows it, and the memory that takes.
func bulkTransaction(ctx context.Context, b *bench) error {
	for _, interval := range []string{"0s", "2m"} {
		if err := b.bulkAt(ctx, interval); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) bulkAt(ctx context.Context, interval string) error {
	dir, err := b.scratch()
	if err != nil {
		return err
	}
	primary := filepath.Join(dir, "app.db")
	if err := execute(ctx, primary, "CREATE TABLE bulk(b)"); err != nil {
		return err
	}
	p, err := b.startPair(ctx, dir, primary, "--embedded-sync-interval", interval)
	if err != nil {
		return err
	}
	w, err := child.Start(bulkJob, bulkSpec{primary, b.bulkMiB}, func([]byte) {})
	if err != nil {
		return err
	}
	defer w.Kill()
	// The commit is when a reader of the primary sees it: the committing
	// connection then goes on with its automatic checkpoint.
	began, err := awaitRows(ctx, primary)
	if err != nil {
		return err
	}
	seen, err := awaitRows(ctx, p.replica)
	if err != nil {
		return err
	}
	if err := w.Wait(ctx); err != nil {
		return err
	}
	took := seen.Sub(began)
	if err := p.stop(); err != nil {
		return err
	}
	fmt.Printf("\nbulk, sync interval %s: one transaction of %d MiB visible %s after its commit: %.0f MB/s; peak memory ltx-pub with NATS %.0f MiB, ltx-sub %.0f MiB\n",
		interval, b.bulkMiB, took.Round(time.Millisecond), float64(b.bulkMiB)*1.048576/took.Seconds(), mib(p.pub.peak), mib(p.sub.peak))
	return nil
}

// awaitRows returns when a reader of path first saw a row.
func awaitRows(ctx context.Context, path string) (time.Time, error) {
	db, err := sqlconn.OpenOne(ctx, path, sqlconn.Options{Mode: "ro"})
	if err != nil {
		return time.Time{}, err
	}
	defer db.Close()
	for ctx.Err() == nil {
		var n sql.NullInt64
		if err := db.QueryRowContext(ctx, "SELECT max(rowid) FROM bulk").Scan(&n); err != nil {
			return time.Time{}, err
		}
		if n.Int64 > 0 {
			return time.Now(), nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Time{}, context.Cause(ctx)
}

// idle opens many databases in one ltx-pub and lets it be.
func idle(ctx context.Context, b *bench) error {
	dir, err := b.scratch()
	if err != nil {
		return err
	}
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	args := []string{"--embedded", filepath.Join(dir, "nats"), "--embedded-listen", addr, "--embedded-sync-interval", "2m"}
	for i := range b.idle {
		path := filepath.Join(dir, fmt.Sprintf("d%04d.db", i))
		if err := execute(ctx, path, "CREATE TABLE t(a); INSERT INTO t VALUES (randomblob(100))"); err != nil {
			return err
		}
		args = append(args, path)
	}
	p, err := b.start(ctx, "ltx-pub", args...)
	if err != nil {
		return err
	}
	if err := p.wait(ctx, func() bool { return allPublished(p, b.idle) }); err != nil {
		return err
	}
	time.Sleep(12 * time.Second) // what was just published counts as active for ten
	before, began := p.cpu(), time.Now()
	time.Sleep(2 * b.span)
	used := p.cpu() - before
	share := used.Seconds() / time.Since(began).Seconds()
	rss := p.memory("VmRSS")
	fmt.Printf("\nidle: %d databases in one ltx-pub: %.2f %% of a core, %.0f MiB\n", b.idle, 100*share, mib(rss))
	return p.stop()
}

func allPublished(p *program, n int) bool {
	var all []status
	if p.get("/status", &all) != nil || len(all) != n {
		return false
	}
	for _, s := range all {
		if s.TXID == "0000000000000000" {
			return false
		}
	}
	return true
}
