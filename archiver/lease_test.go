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

// forgetful is a bucket that does what it is asked, and of which the first answer
// gets lost, and every other one after it.
type forgetful struct {
	jetstream.KeyValue
	creates, updates atomic.Int64
}

var errAnswerLost = errors.New("the answer was lost")

func answer(n *atomic.Int64, revision uint64, err error) (uint64, error) {
	if err == nil && n.Add(1)%2 == 1 {
		return 0, errAnswerLost
	}
	return revision, err
}

func (b *forgetful) Create(ctx context.Context, key string, value []byte, opts ...jetstream.KVCreateOpt) (uint64, error) {
	revision, err := b.KeyValue.Create(ctx, key, value, opts...)
	return answer(&b.creates, revision, err)
}

func (b *forgetful) Update(ctx context.Context, key string, value []byte, last uint64) (uint64, error) {
	revision, err := b.KeyValue.Update(ctx, key, value, last)
	return answer(&b.updates, revision, err)
}

// TestLeaseAnswerLost: what we wrote ourselves is not taken for another holder,
// and another holder is not taken for us.
func TestLeaseAnswerLost(t *testing.T) {
	t.Parallel()
	const ttl = 6 * time.Second // three quarters of it pass for a loss
	kv, err := leaseBucket(t.Context(), streamtest.Connect(t, newServer(t)), "LTX", ttl, 1)
	if err != nil {
		t.Fatal(err)
	}
	bucket := &forgetful{KeyValue: kv}
	ours := newLease(bucket, "d1", ttl, slog.New(slog.DiscardHandler))
	other := newLease(kv, "d1", ttl, slog.New(slog.DiscardHandler))
	revision, err := ours.acquire(t.Context(), func(h holder) { t.Errorf("held by %+v", h) })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	kept := make(chan error, 1)
	go func() { kept <- ours.keep(ctx, revision) }()
	streamtest.Eventually(t, "an answer lost, and the next one not", func() bool { return bucket.updates.Load() >= 2 })
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
