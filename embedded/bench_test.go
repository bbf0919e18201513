package embedded_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/ltxstream/ltxstream/embedded"
)

// BenchmarkPublish is one message of 1 KB in flight over the in-process
// connection, acknowledged after a sync and without.
func BenchmarkPublish(b *testing.B) {
	for name, interval := range map[string]time.Duration{"sync=always": 0, "sync=2m": 2 * time.Minute} {
		b.Run(name, func(b *testing.B) {
			s, err := embedded.New(embedded.Config{Dir: b.TempDir(), SyncInterval: interval, Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				b.Fatal(err)
			}
			if err := s.Start(b.Context()); err != nil {
				b.Fatal(err)
			}
			defer s.Shutdown()
			nc, err := s.Connect()
			if err != nil {
				b.Fatal(err)
			}
			defer nc.Close()
			js, err := jetstream.New(nc)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := addStream(b.Context(), js); err != nil {
				b.Fatal(err)
			}
			msg := make([]byte, 1<<10)
			b.SetBytes(int64(len(msg)))
			for b.Loop() {
				if _, err := js.Publish(b.Context(), "t.1", msg); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkStart is the time from nothing to a server with JetStream and back.
func BenchmarkStart(b *testing.B) {
	dir := b.TempDir()
	for b.Loop() {
		s, err := embedded.New(embedded.Config{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Start(b.Context()); err != nil {
			b.Fatal(err)
		}
		if err := s.Shutdown(); err != nil {
			b.Fatal(err)
		}
	}
}
