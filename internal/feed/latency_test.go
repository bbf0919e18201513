package feed

import (
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/stream/streamtest"
)

// BenchmarkLatency measures publish → handed out, next to the bare way through
// a consumer's iterator, in one run: one file at a time over loopback TCP.
func BenchmarkLatency(b *testing.B) {
	js := streamtest.Connect(b, streamtest.Server(b, nil))
	h := newHarness(b, js, nil)
	c := streamtest.NewChain("app", 1)
	c.PageSize = 4096
	c.Publish(b, js, c.Full(b, 32), 0)
	h.seek(ltx.Pos{}, 0)
	if _, err := h.Next(b.Context()); err != nil {
		b.Fatal(err)
	}
	cons, err := js.CreateOrUpdateConsumer(b.Context(), "LTX", jetstream.ConsumerConfig{Durable: "bare", FilterSubject: "ltx.bare.>", AckPolicy: jetstream.AckAllPolicy})
	if err != nil {
		b.Fatal(err)
	}
	it, err := cons.Messages()
	if err != nil {
		b.Fatal(err)
	}
	defer it.Stop()
	var feedTimes, bareTimes []time.Duration
	var file streamtest.File
	for b.Loop() {
		file = c.Step(b, 2)
		msg := c.Messages(file, 1<<20)[0]
		at := make(chan time.Time, 1)
		go func() {
			at <- time.Now()
			_, _ = js.PublishMsg(b.Context(), msg)
		}()
		if _, err := h.Next(b.Context()); err != nil {
			b.Fatal(err)
		}
		feedTimes = append(feedTimes, time.Since(<-at))
		go func() {
			at <- time.Now()
			_, _ = js.Publish(b.Context(), "ltx.bare.0", file.Data)
		}()
		if _, err := it.Next(); err != nil {
			b.Fatal(err)
		}
		bareTimes = append(bareTimes, time.Since(<-at))
	}
	for name, d := range map[string][]time.Duration{"feed": feedTimes, "bare": bareTimes} {
		slices.Sort(d)
		b.ReportMetric(float64(d[len(d)/2].Microseconds()), name+"-p50-µs")
		b.ReportMetric(float64(d[len(d)*99/100].Microseconds()), name+"-p99-µs")
	}
}

// BenchmarkThroughput measures how fast stored files are handed out.
func BenchmarkThroughput(b *testing.B) {
	js := streamtest.Connect(b, streamtest.Server(b, nil))
	h := newHarness(b, js, nil)
	c := streamtest.NewChain("app", 1)
	c.PageSize = 4096
	c.Publish(b, js, c.Full(b, 32), 0)
	base := c.Pos
	const n = 5000
	for range n {
		c.Publish(b, js, c.Step(b, 2), 0)
	}
	b.ReportAllocs()
	for b.Loop() {
		h.seek(base, 1)
		for range n {
			if _, err := h.Next(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "files/s")
}
