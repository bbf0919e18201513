package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/ltxstream/ltxstream/testenv/app"
	"github.com/ltxstream/ltxstream/testenv/foreign"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// lag measures commit → visible to a fresh and to a long-lived reader in other
// processes, and in the same run publish → delivered of a bare message.
func lag(ctx context.Context, b *bench) error {
	fmt.Println("\n| fsync | tx/s | fresh reader p50 / p99 | long-lived reader p50 / p99 | bare message p50 / p99 | ratio of p50 |")
	fmt.Println("|---|---|---|---|---|---|")
	for _, sync := range []struct{ name, interval string }{{"every ack", "0s"}, {"lazy", "2m"}} {
		for _, rate := range []float64{1, 100, 1000} {
			if err := b.lagAt(ctx, sync.name, sync.interval, rate); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *bench) lagAt(ctx context.Context, label, interval string, rate float64) error {
	dir, err := b.scratch()
	if err != nil {
		return err
	}
	primary := filepath.Join(dir, "app.db")
	if err := prepare(ctx, primary); err != nil {
		return err
	}
	p, err := b.startPair(ctx, dir, primary, "--embedded-sync-interval", interval)
	if err != nil {
		return err
	}
	span := b.span
	if rate <= 1 {
		span *= 3
	}
	fresh, lived, err := b.probe(ctx, p, rate, span)
	if err != nil {
		return errors.Join(err, p.stop())
	}
	bare, err := bareDelivery(ctx, p.url, rate, span/2)
	if err != nil {
		return errors.Join(err, p.stop())
	}
	best := min(quantile(fresh, 0.5), quantile(lived, 0.5))
	fmt.Printf("| %s | %.0f | %s | %s | %s | %.1f |\n", label, rate, pq(fresh), pq(lived), pq(bare), float64(best)/float64(max(quantile(bare, 0.5), 1)))
	return p.stop()
}

// prepare makes the bank, so that the publisher has a database to open.
func prepare(ctx context.Context, path string) error {
	_, err := app.Run(ctx, app.Config{Path: path, DB: sqlconn.WAL(), Seed: 1, Limit: 10})
	return err
}

// probe runs one reader after the other, so that they do not compete.
func (b *bench) probe(ctx context.Context, p *pair, rate float64, span time.Duration) (fresh, lived []time.Duration, err error) {
	if fresh, err = probeOnce(ctx, p, rate, span, true); err != nil {
		return nil, nil, err
	}
	lived, err = probeOnce(ctx, p, rate, span, false)
	return fresh, lived, err
}

func probeOnce(ctx context.Context, p *pair, rate float64, span time.Duration, fresh bool) ([]time.Duration, error) {
	reader, err := foreign.Start(foreign.Config{
		Action: foreign.Probe, Path: p.replica, Fresh: fresh, Interval: 50 * time.Microsecond,
		DB: sqlconn.Options{Mode: "ro"},
	})
	if err != nil {
		return nil, err
	}
	defer reader.Kill()
	if _, err := reader.WaitFor(ctx, func(r foreign.Report) bool { return r.Checks > 0 }); err != nil {
		return nil, err
	}
	writer, err := app.StartTraced(app.Config{Path: p.primary, DB: sqlconn.WAL(), Seed: 2, Rate: rate, Duration: span})
	if err != nil {
		return nil, err
	}
	defer writer.Kill()
	done, err := writer.Result(ctx)
	if err != nil {
		return nil, err
	}
	last := done.Report.LastSeq
	if _, err := reader.WaitFor(ctx, func(r foreign.Report) bool { return r.LastSeq >= last }); err != nil {
		return nil, err
	}
	seen, err := reader.Finish(ctx)
	if err != nil {
		return nil, err
	}
	lags, missing := foreign.Lags(done.Commits, seen.Seen)
	if missing > 0 {
		return nil, fmt.Errorf("%d commits were never seen", missing)
	}
	slices.Sort(lags)
	return lags, nil
}

// bareDelivery measures publish → delivered through a stream of its own on the
// same server, at the same rate, with messages the size of a small LTX file.
func bareDelivery(ctx context.Context, url string, rate float64, span time.Duration) ([]time.Duration, error) {
	nc, err := nats.Connect(url)
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, err
	}
	st, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "BARE", Subjects: []string{"bare"}, Storage: jetstream.FileStorage})
	if err != nil {
		return nil, err
	}
	cons, err := st.CreateConsumer(ctx, jetstream.ConsumerConfig{AckPolicy: jetstream.AckNonePolicy})
	if err != nil {
		return nil, err
	}
	got := make(chan time.Time, 1)
	consuming, err := cons.Consume(func(jetstream.Msg) { got <- time.Now() })
	if err != nil {
		return nil, err
	}
	defer consuming.Stop()
	return paced(ctx, rate, span, func() (time.Duration, error) {
		start := time.Now()
		if _, err := js.Publish(ctx, "bare", make([]byte, 6<<10)); err != nil {
			return 0, err
		}
		return (<-got).Sub(start), nil
	})
}

func paced(ctx context.Context, rate float64, span time.Duration, one func() (time.Duration, error)) ([]time.Duration, error) {
	var all []time.Duration
	began := time.Now()
	for i := 1; time.Since(began) < span && ctx.Err() == nil; i++ {
		d, err := one()
		if err != nil {
			return nil, err
		}
		all = append(all, d)
		time.Sleep(time.Until(began.Add(time.Duration(float64(i) / rate * float64(time.Second)))))
	}
	slices.Sort(all)
	return all, nil
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

func pq(sorted []time.Duration) string {
	return fmt.Sprintf("%.2f / %.2f ms", ms(quantile(sorted, 0.5)), ms(quantile(sorted, 0.99)))
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
