package publisher

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/embedded"
	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
	"github.com/ltxstream/ltxstream/wire"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/superfly/ltx"
)

// BenchmarkPublish measures one small transaction from its commit to its
// acknowledgement over loopback TCP, and beside it the bare round trip of a
// message of the same size to the same server.
func BenchmarkPublish(b *testing.B) {
	for name, every := range map[string]time.Duration{"lazy": 2 * time.Minute, "always": 0} {
		b.Run(name, func(b *testing.B) { benchmarkPublish(b, every) })
	}
}

func benchmarkPublish(b *testing.B, every time.Duration) {
	quiet := slog.New(slog.DiscardHandler)
	s, err := embedded.New(embedded.Config{Dir: b.TempDir(), Listen: "127.0.0.1:-1", SyncInterval: every, Logger: quiet})
	if err != nil {
		b.Fatal(err)
	}
	if err := s.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Shutdown() })
	js := testenv.JetStream(b, testenv.Connect(b, s.ClientURL()))
	path := filepath.Join(b.TempDir(), "app.db")
	_, teller := testenv.Bank(b, path, sqlconn.WAL(), 1)
	p, err := New(Config{JS: js, DB: "app", Path: path, Logger: quiet})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			b.Error(err)
		}
	}()
	pos, err := p.Sync(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	bytes := p.Status().Bytes
	var took []time.Duration
	for b.Loop() {
		pos.TXID++
		if _, err := teller.Transfer(b.Context()); err != nil {
			b.Fatal(err)
		}
		start := time.Now()
		p.waitAcked(pos.TXID)
		took = append(took, time.Since(start))
	}
	files := p.Status().Files - 1
	slices.Sort(took)
	b.ReportMetric(micros(took[len(took)/2]), "p50-µs")
	b.ReportMetric(micros(took[len(took)*99/100]), "p99-µs")
	bare := bareRoundTrip(b, js, int((p.Status().Bytes-bytes)/max(files, 1)), min(len(took), 2000))
	b.ReportMetric(micros(bare), "bare-p50-µs")
	b.ReportMetric(float64(took[len(took)/2])/float64(bare), "ratio")
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }

// waitAcked waits without asking for anything, as a follower would.
func (p *Publisher) waitAcked(txid ltx.TXID) {
	for {
		p.mu.Lock()
		acked, changed := p.mu.acked, p.mu.changed
		p.mu.Unlock()
		if acked.TXID >= txid {
			return
		}
		<-changed
	}
}

// bareRoundTrip is the median of n plain publishes of size bytes with headers
// as ours are.
func bareRoundTrip(b *testing.B, js jetstream.JetStream, size, n int) time.Duration {
	h := wire.Meta{DB: "app", Min: 2, Max: 2, Pre: 1 << 63, Post: 1 << 63, PageSize: 4096, Commit: 9, Size: int64(size), Writer: "0123456789abcdef", Epoch: 1, Base: 2}
	var took []time.Duration
	for i := range n {
		h.Min, h.Max = h.Min+1, h.Max+1
		m := &nats.Msg{Subject: fmt.Sprintf("ltx.bare.%d", i%2), Header: h.Header(), Data: make([]byte, size)}
		start := time.Now()
		if _, err := js.PublishMsg(b.Context(), m); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	return took[n/2]
}
