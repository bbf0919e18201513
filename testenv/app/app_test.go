package app

import (
	"context"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/testenv/bank"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

func TestHistogramIsWithinTwoPercent(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	var h Histogram
	var all []time.Duration
	for range 10_000 {
		d := time.Duration(rng.ExpFloat64() * float64(time.Millisecond))
		h.Add(d)
		all = append(all, d)
	}
	slices.Sort(all)
	for _, q := range []float64{0, 0.1, 0.5, 0.99, 0.9999} {
		want, got := all[int(q*float64(len(all)))], h.Quantile(q)
		if float64(got) < float64(want) || float64(got) > float64(want)*1.02+2 {
			t.Errorf("quantile %v: %s, want %s", q, got, want)
		}
	}
	if h.Max() != all[len(all)-1] || h.Quantile(1) != h.Max() || h.Count() != 10_000 {
		t.Errorf("max %s, count %d", h.Max(), h.Count())
	}
	var empty Histogram
	if empty.Quantile(0.5) != 0 {
		t.Error("an empty histogram has a median")
	}
}

func TestRateAndLimit(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.db")
	var seen []int64
	cfg := Config{
		Path: path, DB: sqlconn.WAL(), Rate: 500, Limit: 100, Checkpoint: "TRUNCATE", CheckpointEvery: 10,
		Observe: func(c Commit) { seen = append(seen, c.Seq) },
	}
	r, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if r.Commits != 100 || len(seen) != 100 || r.LastSeq != 100 || r.Ckpts != 10 || r.CkptBusy != 0 {
		t.Fatalf("%+v, observed %d", r, len(seen))
	}
	if r.Elapsed < 190*time.Millisecond || r.P50 <= 0 || r.P99 < r.P50 || r.Max < r.P99 {
		t.Fatalf("%s", r)
	}
}

func TestChildSaturatesAndStops(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.db")
	p, err := StartTraced(Config{Path: path, DB: sqlconn.WAL()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	if _, err := p.WaitFor(soon(t), 500); err != nil {
		t.Fatal(err)
	}
	r, err := p.Finish(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	if r.Report.Commits < 500 || int64(len(r.Commits)) != r.Report.Commits {
		t.Fatalf("%s, traced %d", r.Report, len(r.Commits))
	}
	verify(t, path, r.Report.Commits)
}

func TestKilledChildLeavesAWholeBank(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.db")
	p, err := Start(Config{Path: path, DB: sqlconn.WAL()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	r, err := p.WaitFor(soon(t), 100)
	if err != nil {
		t.Fatal(err)
	}
	p.Kill()
	verify(t, path, r.Report.Commits)
}

func verify(t *testing.T, path string, atLeast int64) {
	t.Helper()
	db, err := sqlconn.OpenOne(t.Context(), path, sqlconn.Options{Mode: "rw", BusyTimeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if s, err := bank.Check(t.Context(), db); err != nil || s.Seq < atLeast {
		t.Fatalf("seq %d, want at least %d: %v", s.Seq, atLeast, err)
	}
}

func TestBusyIsCountedNotFatal(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.db")
	holder, err := sqlconn.OpenOne(t.Context(), path, sqlconn.WAL())
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	if err := bank.Create(t.Context(), holder, bank.Config{}); err != nil {
		t.Fatal(err)
	}
	writer, err := sqlconn.OpenOne(t.Context(), path, sqlconn.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	for span := 50 * time.Millisecond; ; span *= 2 { // a slow machine comes too late to the first ones
		if _, err := holder.Exec("BEGIN IMMEDIATE"); err != nil {
			t.Fatal(err)
		}
		released := make(chan struct{})
		time.AfterFunc(span, func() { defer close(released); _, _ = holder.Exec("COMMIT") })
		r, err := RunOn(t.Context(), writer, Config{Limit: 10})
		<-released
		met := r.Busy > 0 && r.Max >= 20*time.Millisecond
		if err != nil || r.Commits != 10 || !met && span > 10*time.Second {
			t.Fatalf("%s, %v", r, err)
		}
		if met {
			return
		}
	}
}

// soon is a context for what should take a moment.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}
