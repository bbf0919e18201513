package archiver

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/ltxstream/ltxstream/internal/stream/streamtest"
)

// forgetful is a bucket that does what it is asked, and whose answer gets lost
// every other time.
type forgetful struct {
	jetstream.KeyValue
	calls, lost atomic.Int64
}

var errAnswerLost = errors.New("the answer was lost")

func (b *forgetful) answer(revision uint64, err error) (uint64, error) {
	if err == nil && b.calls.Add(1)%2 == 1 {
		b.lost.Add(1)
		return 0, errAnswerLost
	}
	return revision, err
}

func (b *forgetful) Create(ctx context.Context, key string, value []byte, opts ...jetstream.KVCreateOpt) (uint64, error) {
	return b.answer(b.KeyValue.Create(ctx, key, value, opts...))
}

func (b *forgetful) Update(ctx context.Context, key string, value []byte, last uint64) (uint64, error) {
	return b.answer(b.KeyValue.Update(ctx, key, value, last))
}

// TestLeaseAnswerLost: what we wrote ourselves is not taken for another holder,
// and another holder is not taken for us.
func TestLeaseAnswerLost(t *testing.T) {
	t.Parallel()
	kv, err := leaseBucket(t.Context(), streamtest.Connect(t, newServer(t)), "LTX", 2*time.Second, 1)
	if err != nil {
		t.Fatal(err)
	}
	bucket := &forgetful{KeyValue: kv}
	ours := newLease(bucket, "d1", 2*time.Second, slog.New(slog.DiscardHandler))
	other := newLease(kv, "d1", 2*time.Second, slog.New(slog.DiscardHandler))
	revision, err := ours.acquire(t.Context(), func(h holder) { t.Errorf("held by %+v", h) })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	kept := make(chan error, 1)
	go func() { kept <- ours.keep(ctx, revision) }()
	streamtest.Eventually(t, "answers lost", func() bool { return bucket.lost.Load() >= 4 })
	if h, now := other.holder(t.Context()); h.ID != ours.id || now == revision {
		t.Errorf("held by %+v at revision %d", h, now)
	}
	select {
	case err := <-kept:
		t.Fatalf("given up: %v", err)
	default:
	}
	if _, err := kv.Put(t.Context(), "d1", []byte("{}")); err != nil { // somebody else took it
		t.Fatal(err)
	}
	if err := <-kept; !errors.Is(err, errLeaseLost) {
		t.Errorf("%v, want errLeaseLost", err)
	}
	cancel()
}
