package capture

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/testenv/child"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
	"github.com/superfly/ltx"
)

// BenchmarkCapture makes LTX files of groups of frames.
func BenchmarkCapture(b *testing.B) {
	for _, pages := range []int{1, 10, 1000} {
		b.Run(fmt.Sprint(pages, " pages"), func(b *testing.B) {
			a := newApp(b, sqlconn.Options{AutoCheckpoint: -1}, 1)
			a.exec("INSERT INTO a(v) VALUES (randomblob(?))", 4096*pages)
			c, err := Open(b.Context(), Config{Path: a.path, Logger: quiet(b)})
			must(b, err)
			defer c.Close()
			_, err = c.step(b.Context(), true)
			must(b, err)
			a.exec("UPDATE a SET v = randomblob(?) WHERE id = ?", 4092*pages-4092, appRows+1)
			h, err := c.db.Header()
			must(b, err)
			from := c.held.chain
			b.ReportAllocs()
			b.SetBytes(int64(h.MaxFrame-from.Frame) * 4096)
			for b.Loop() {
				c.held.begin(from)
				must(b, c.take(h), c.Acked(c.Pos().TXID))
			}
		})
	}
}

// saturateSpec says how long a child writes small transactions as fast as it can.
type saturateSpec struct {
	Path string
	For  time.Duration
}

type saturateReport struct {
	Done    int
	Slowest time.Duration
	P999    time.Duration
	MaxWAL  int64
}

func saturateJob(ctx context.Context, raw json.RawMessage, out *child.Output) error {
	var spec saturateSpec
	if err := json.Unmarshal(raw, &spec); err != nil {
		return err
	}
	db, err := sqlconn.OpenOne(ctx, spec.Path, sqlconn.WAL())
	if err != nil {
		return err
	}
	defer db.Close()
	stmt, err := db.PrepareContext(ctx, "UPDATE a SET v = randomblob(200) WHERE id = ?")
	if err != nil {
		return err
	}
	defer stmt.Close()
	var rep saturateReport
	took := make([]time.Duration, 0, 1<<20)
	for end := time.Now().Add(spec.For); time.Now().Before(end); rep.Done++ {
		start := time.Now()
		if _, err := stmt.ExecContext(ctx, 1+rep.Done*7%appRows); err != nil {
			return err
		}
		took = append(took, time.Since(start))
		if rep.Done%512 == 0 {
			var st syscall.Stat_t
			if syscall.Stat(spec.Path+"-wal", &st) == nil {
				rep.MaxWAL = max(rep.MaxWAL, st.Size)
			}
		}
	}
	slices.Sort(took)
	rep.Slowest, rep.P999 = took[len(took)-1], took[len(took)*999/1000]
	return out.Send(rep)
}

func saturate(b *testing.B, path string, span time.Duration) saturateReport {
	b.Helper()
	r := child.NewReports(saturateReport{}, nil)
	p, err := child.Start("saturate", saturateSpec{path, span}, r.Line)
	must(b, err)
	must(b, p.Wait(b.Context()))
	rep, err := r.Last()
	must(b, err)
	return rep
}

// BenchmarkAttached compares a saturating writer with and without a capture
// beside it, in pairs: the ratio of the medians, and what the writer notices.
func BenchmarkAttached(b *testing.B) {
	const span = 1500 * time.Millisecond
	var alone, attached []float64
	var slowAlone, slowAttached, hold time.Duration
	var maxWAL int64
	var restarts, yields, comparisons uint64
	for b.Loop() {
		for range 4 {
			a := newApp(b, sqlconn.Options{}, 1)
			a.close()
			rep := saturate(b, a.path, span)
			alone, slowAlone = append(alone, float64(rep.Done)/span.Seconds()), max(slowAlone, rep.Slowest)
			st, rep := saturateAttached(b, a.path, span)
			attached, slowAttached = append(attached, float64(rep.Done)/span.Seconds()), max(slowAttached, rep.Slowest)
			maxWAL, hold = max(maxWAL, rep.MaxWAL), max(hold, st.MaxWriteHold)
			restarts, yields, comparisons = restarts+st.Restarts, yields+st.Yields, comparisons+st.Comparisons
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(alone), "tx/s-alone")
	b.ReportMetric(median(attached), "tx/s-attached")
	b.ReportMetric(100*median(attached)/median(alone), "%-kept")
	b.ReportMetric(hold.Seconds()*1e3, "ms-max-hold")
	b.ReportMetric(slowAlone.Seconds()*1e3, "ms-slowest-alone")
	b.ReportMetric(slowAttached.Seconds()*1e3, "ms-slowest-attached")
	b.ReportMetric(float64(maxWAL)/(1<<20), "MB-wal")
	b.ReportMetric(float64(restarts), "restarts")
	b.ReportMetric(float64(yields), "yields")
	b.ReportMetric(float64(comparisons), "comparisons")
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// saturateAttached captures in a child process of its own, as ltx-pub does.
func saturateAttached(b *testing.B, path string, span time.Duration) (Stats, saturateReport) {
	b.Helper()
	c, err := Open(b.Context(), Config{Path: path, SoleOwner: true, Logger: quiet(b)})
	must(b, err)
	ctx, cancel := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = c.Run(ctx) })
	wg.Go(func() {
		for at := ltx.TXID(0); ; {
			f, err := c.Next(ctx, at)
			if err != nil {
				return
			}
			at = f.TXID()
			_ = c.Acked(at)
		}
	})
	_, err = c.Sync(ctx)
	must(b, err)
	rep := saturate(b, path, span)
	_, err = c.Sync(ctx)
	must(b, err)
	st := c.Stats()
	cancel()
	wg.Wait()
	must(b, c.Close())
	return st, rep
}

// BenchmarkIdle measures what idle databases cost.
func BenchmarkIdle(b *testing.B) {
	const n = 200
	notifier, err := NewNotifier()
	must(b, err)
	defer notifier.Close()
	dir := b.TempDir()
	ctx, cancel := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	var before, after runtime.MemStats
	rss := maxRSS()
	runtime.ReadMemStats(&before)
	for i := range n {
		path := filepath.Join(dir, fmt.Sprintf("%d.db", i))
		db, err := sqlconn.OpenOne(ctx, path, sqlconn.WAL())
		must(b, err)
		_, err = db.Exec("CREATE TABLE t (a); INSERT INTO t VALUES (zeroblob(20000))")
		must(b, err, db.Close())
		c, err := Open(ctx, Config{Path: path, Notifier: notifier, Logger: quiet(b)})
		must(b, err)
		wg.Go(func() { _ = c.Run(ctx); _ = c.Close() })
		_, err = c.Sync(ctx)
		must(b, err)
	}
	time.Sleep(idleAfter + 2*time.Second)
	runtime.GC()
	runtime.ReadMemStats(&after)
	cpu := cpuTime()
	const span = 5 * time.Second
	for b.Loop() {
		time.Sleep(span)
	}
	used := cpuTime() - cpu
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(100*used.Seconds()/span.Seconds()/n*1000, "%core/1000db")
	b.ReportMetric(float64(after.HeapInuse+after.StackInuse-before.HeapInuse-before.StackInuse)/n/1024, "KB-go/db")
	b.ReportMetric(float64(maxRSS()-rss)/n, "KB-rss/db")
	cancel()
	wg.Wait()
}

func usage() (r syscall.Rusage) {
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return r
}

func maxRSS() int64 { r := usage(); return r.Maxrss }

func cpuTime() time.Duration {
	r := usage()
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
