package archiver

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// errLeaseLost is the cause when another process may write the destination.
var errLeaseLost = errors.New("the lease was lost")

// lease lets one process at a time do something, as long as it renews its entry
// in a bucket whose entries end by themselves. Two can believe to have it for a
// moment: what they do must bear that.
type lease struct {
	kv  jetstream.KeyValue
	id  string // of this lease: what bears it in the bucket is ours, though its answer was lost
	key string
	ttl time.Duration
	log *slog.Logger
}

// holder is what the entry says, for people.
type holder struct {
	ID    string    `json:"id"`
	Host  string    `json:"host"`
	PID   int       `json:"pid"`
	Since time.Time `json:"since"`
}

func newLease(kv jetstream.KeyValue, key string, ttl time.Duration, log *slog.Logger) *lease {
	return &lease{kv: kv, id: rand.Text(), key: key, ttl: ttl, log: log}
}

func (l *lease) self() holder {
	host, err := os.Hostname()
	if err != nil {
		host = "?"
	}
	return holder{ID: l.id, Host: host, PID: os.Getpid(), Since: time.Now().UTC().Truncate(time.Millisecond)}
}

// leaseBucket opens or makes the bucket whose entries end after ttl.
func leaseBucket(ctx context.Context, js jetstream.JetStream, stream string, ttl time.Duration, replicas int) (jetstream.KeyValue, error) {
	kv, err := js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{
		Bucket: stream + "-leases", Description: "who writes which archive", TTL: ttl, Storage: jetstream.MemoryStorage, Replicas: max(replicas, 1),
	})
	if err != nil {
		return nil, fmt.Errorf("open lease bucket %s-leases: %w", stream, err)
	}
	return kv, nil
}

// acquire waits until the lease is ours, and returns its revision. standby is
// told who has it meanwhile.
func (l *lease) acquire(ctx context.Context, standby func(holder)) (uint64, error) {
	me, err := json.Marshal(l.self())
	if err != nil {
		return 0, err
	}
	for {
		revision, err := l.kv.Create(ctx, l.key, me)
		if err == nil {
			return revision, nil
		}
		if errors.Is(err, jetstream.ErrKeyExists) {
			h, revision := l.holder(ctx)
			if h.ID == l.id {
				return revision, nil
			}
			standby(h)
		} else if ctx.Err() == nil {
			l.log.Warn("lease cannot be asked for, trying again", "err", err)
		}
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-time.After(l.ttl / 5):
		}
	}
}

func (l *lease) holder(ctx context.Context) (h holder, revision uint64) {
	if entry, err := l.kv.Get(ctx, l.key); err == nil {
		_ = json.Unmarshal(entry.Value(), &h) // for people
		revision = entry.Revision()
	}
	return h, revision
}

// keep renews the lease until ctx ends, or returns errLeaseLost: when somebody
// else has it, or when it could not be renewed for so long that somebody may.
func (l *lease) keep(ctx context.Context, revision uint64) error {
	me, err := json.Marshal(l.self())
	if err != nil {
		return err
	}
	renewed := time.Now()
	tick := time.NewTicker(l.ttl / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		asked := time.Now()
		call, cancel := context.WithTimeout(ctx, l.ttl/4)
		next, err := l.renew(call, me, revision)
		cancel()
		switch {
		case err == nil:
			revision, renewed = next, asked
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, jetstream.ErrKeyExists), time.Since(renewed) > l.ttl*3/4:
			return fmt.Errorf("%w: %w", errLeaseLost, err)
		}
	}
}

// renew writes the entry again and returns its revision. A renewal whose answer
// was lost has moved the entry on: that is no other holder.
func (l *lease) renew(ctx context.Context, me []byte, revision uint64) (uint64, error) {
	next, err := l.kv.Update(ctx, l.key, me, revision)
	if !errors.Is(err, jetstream.ErrKeyExists) {
		return next, err
	}
	h, now := l.holder(ctx)
	if h.ID != l.id {
		return 0, err
	}
	return l.kv.Update(ctx, l.key, me, now)
}

// release lets a standby take over at once; if that fails, it takes over later.
func (l *lease) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := l.kv.Delete(ctx, l.key); err != nil {
		l.log.Debug("lease not released, it ends by itself", "err", err)
	}
}
