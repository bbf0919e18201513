package embedded

import (
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A full disk makes the server switch JetStream off; here the test does.
func TestJetStreamComesBack(t *testing.T) {
	s, err := New(Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer s.Shutdown()
	url := s.ClientURL()
	nc, err := s.Connect(nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "T", Subjects: []string{"t"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "t", nil); err != nil {
		t.Fatal(err)
	}
	if err := s.running().ShutdownJetStream(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; <-time.After(20 * time.Millisecond) {
		ack, err := js.Publish(t.Context(), "t", nil)
		if err == nil && ack.Sequence >= 2 { // more, where an answer was late
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("JetStream did not come back: %v", err)
		}
	}
	if s.ClientURL() != url {
		t.Errorf("the listener moved from %s to %s", url, s.ClientURL())
	}
}

func TestSyncSettings(t *testing.T) {
	for interval, always := range map[time.Duration]bool{0: true, 30 * time.Second: false} {
		s, err := New(Config{Dir: t.TempDir(), SyncInterval: interval, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		cfg := s.running().JetStreamConfig()
		if cfg.SyncAlways != always || (!always && cfg.SyncInterval != interval) {
			t.Errorf("interval %v: SyncAlways %v, SyncInterval %v", interval, cfg.SyncAlways, cfg.SyncInterval)
		}
		if cfg.MaxStore <= 0 || cfg.MaxStore > DefaultMaxStore || cfg.MaxMemory != memoryStore {
			t.Errorf("MaxStore %d, MaxMemory %d", cfg.MaxStore, cfg.MaxMemory)
		}
		if err := s.Shutdown(); err != nil {
			t.Fatal(err)
		}
	}
}
