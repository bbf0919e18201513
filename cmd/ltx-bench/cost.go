package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/ltxstream/ltxstream/testenv/app"
	"github.com/ltxstream/ltxstream/testenv/child"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

const (
	tinyJob = "tiny"
	bulkJob = "bulk"
)

// cost compares a saturating application with and without ltx-pub, in turns.
func cost(ctx context.Context, b *bench) error {
	fmt.Println("\n| application | alone | with ltx-pub | ratio of medians | longest write-lock hold | longest statement alone / with |")
	fmt.Println("|---|---|---|---|---|---|")
	for _, w := range []struct {
		label string
		cfg   app.Config
	}{
		{"bank transfers, saturating", app.Config{}},
		{"bank transfers, TRUNCATE every 500", app.Config{Checkpoint: "TRUNCATE", CheckpointEvery: 500}},
		{"bank transfers, 1,000 tx/s", app.Config{Rate: 1000}},
	} {
		if err := b.costOf(ctx, w.label, w.cfg); err != nil {
			return err
		}
	}
	return nil
}

type costs struct {
	tps        []float64
	max        time.Duration
	hold       time.Duration
	ckpts      int64
	ckptBusy   int64
	busyWrites int64
}

func (c *costs) add(r app.Report) {
	c.tps = append(c.tps, r.TPS)
	c.max = max(c.max, r.Max)
	c.ckpts += r.Ckpts
	c.ckptBusy += r.CkptBusy
	c.busyWrites += r.Busy
}

func (b *bench) costOf(ctx context.Context, label string, cfg app.Config) error {
	var alone, with costs
	for range b.rounds {
		if err := b.costOnce(ctx, cfg, false, &alone); err != nil {
			return err
		}
		if err := b.costOnce(ctx, cfg, true, &with); err != nil {
			return err
		}
	}
	ratio := median(with.tps) / median(alone.tps)
	fmt.Printf("| %s | %.0f tx/s | %.0f tx/s | %.3f | %.2f ms | %.1f / %.1f ms |\n", label, median(alone.tps), median(with.tps), ratio, ms(with.hold), ms(alone.max), ms(with.max))
	if alone.ckpts > 0 {
		fmt.Printf("\n%s: checkpoints busy %d of %d alone, %d of %d with ltx-pub\n\n", label, alone.ckptBusy, alone.ckpts, with.ckptBusy, with.ckpts)
	}
	return nil
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	if len(v) == 0 {
		return 0
	}
	return v[len(v)/2]
}

func (b *bench) costOnce(ctx context.Context, cfg app.Config, attach bool, c *costs) error {
	dir, err := b.scratch()
	if err != nil {
		return err
	}
	cfg.Path, cfg.DB, cfg.Seed, cfg.Duration = filepath.Join(dir, "app.db"), sqlconn.WAL(), 3, b.span/2
	if err := prepare(ctx, cfg.Path); err != nil {
		return err
	}
	var pub *program
	if attach {
		if pub, _, err = b.publish(ctx, dir, cfg.Path); err != nil {
			return err
		}
	}
	p, err := app.Start(cfg)
	if err != nil {
		return err
	}
	defer p.Kill()
	done, err := p.Result(ctx)
	if err != nil {
		return err
	}
	c.add(done.Report)
	if pub == nil {
		return nil
	}
	st, err := pub.status()
	if err != nil {
		return err
	}
	c.hold = max(c.hold, st.Capture.MaxWriteHold)
	return pub.stop()
}

// walBound saturates a small database and watches the size of its WAL.
func walBound(ctx context.Context, b *bench) error {
	dir, err := b.scratch()
	if err != nil {
		return err
	}
	primary := filepath.Join(dir, "app.db")
	if err := prepare(ctx, primary); err != nil {
		return err
	}
	p, err := b.startPair(ctx, dir, primary)
	if err != nil {
		return err
	}
	writer, err := app.Start(app.Config{Path: primary, DB: sqlconn.WAL(), Seed: 4, Duration: b.wal})
	if err != nil {
		return err
	}
	defer writer.Kill()
	var largest [2]int64
	for end := time.Now().Add(b.wal); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(100 * time.Millisecond) {
		for i, path := range []string{primary, p.replica} {
			if fi, err := os.Stat(path + "-wal"); err == nil {
				largest[i] = max(largest[i], fi.Size())
			}
		}
	}
	done, err := writer.Result(ctx)
	if err != nil {
		return err
	}
	if err := p.caughtUp(ctx); err != nil {
		return err
	}
	st, err := p.pub.status()
	if err != nil {
		return err
	}
	fmt.Printf("\nWAL through %s of saturation (%.0f tx/s, %d LTX files, %d restarts): primary at most %.1f MiB, replica %.1f MiB; longest write-lock hold %.2f ms\n",
		b.wal, done.Report.TPS, st.PublishedFiles, st.Capture.Restarts, mib(largest[0]), mib(largest[1]), ms(st.Capture.MaxWriteHold))
	return p.stop()
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// tinySpec is a saturating writer of the smallest transactions there are.
type tinySpec struct {
	Path string
	Span time.Duration
}

type tinyReport struct{ Commits int64 }

func tiny(ctx context.Context, raw json.RawMessage, out *child.Output) error {
	var spec tinySpec
	if err := json.Unmarshal(raw, &spec); err != nil {
		return err
	}
	db, err := sqlconn.OpenOne(ctx, spec.Path, sqlconn.WAL())
	if err != nil {
		return err
	}
	defer db.Close()
	stmt, err := db.PrepareContext(ctx, "UPDATE tiny SET n = n + 1 WHERE id = 1")
	if err != nil {
		return err
	}
	defer stmt.Close()
	var r tinyReport
	for end := time.Now().Add(spec.Span); time.Now().Before(end) && ctx.Err() == nil; r.Commits++ {
		if _, err := stmt.ExecContext(ctx); err != nil {
			return err
		}
	}
	return out.Send(r)
}
