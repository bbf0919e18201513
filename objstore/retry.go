package objstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Defaults of [RetryConfig].
const (
	DefaultTries       = 6
	DefaultFirstPause  = 200 * time.Millisecond
	DefaultMaxPause    = 20 * time.Second
	DefaultCallTimeout = time.Minute
)

// RetryConfig says how often and how long [Retry] tries. Zero values mean the
// defaults.
type RetryConfig struct {
	Tries      int           // of one call, or without progress of one body
	FirstPause time.Duration // doubled each time, with jitter
	MaxPause   time.Duration
	// CallTimeout bounds one try of Stat, Delete, one page of List, the start
	// of a Get, and each pause between two reads of a body. A Put is bounded by
	// its context alone.
	CallTimeout time.Duration
	Logger      *slog.Logger // default slog.Default(); each failed try at Debug
	OnRetry     func(op string, err error)
}

// Retry returns s with every call tried again while its error is
// [ErrTransient]: with exponential pauses and jitter, until it succeeds, fails
// for good, has failed RetryConfig.Tries times, or its context ends. The body
// of a Get is continued where it broke off. A listing continues behind the
// last key it yielded.
//
// A Put is tried again only when r is an io.Seeker that can (from its offset
// at the call); else its first error is returned. A Put with IfAbsent whose first try
// was stored although its answer got lost returns fs.ErrExist from the second:
// who needs to know reads the object back.
func Retry(s Store, cfg RetryConfig) Store {
	if cfg.Tries <= 0 {
		cfg.Tries = DefaultTries
	}
	if cfg.FirstPause <= 0 {
		cfg.FirstPause = DefaultFirstPause
	}
	if cfg.MaxPause <= 0 {
		cfg.MaxPause = DefaultMaxPause
	}
	if cfg.CallTimeout <= 0 {
		cfg.CallTimeout = DefaultCallTimeout
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return &retrier{Store: s, cfg: cfg}
}

type retrier struct {
	Store // Close, String
	cfg   RetryConfig
}

// attempts counts the failures of one call and paces the next try.
type attempts struct {
	cfg    *RetryConfig
	op     string
	failed int
	pause  backoff.ExponentialBackOff
}

func (r *retrier) attempts(op string) *attempts {
	a := &attempts{cfg: &r.cfg, op: op}
	a.pause = backoff.ExponentialBackOff{
		InitialInterval: r.cfg.FirstPause, MaxInterval: r.cfg.MaxPause,
		Multiplier: 2, RandomizationFactor: 0.5,
	}
	a.pause.Reset()
	return a
}

// progress forgets the failures so far.
func (a *attempts) progress() {
	if a.failed > 0 {
		a.failed = 0
		a.pause.Reset()
	}
}

// again waits before the next try after err, or returns the error to give up
// with.
func (a *attempts) again(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	if !errors.Is(err, ErrTransient) {
		return err
	}
	if a.failed++; a.failed >= a.cfg.Tries {
		return fmt.Errorf("%w (tried %d times)", err, a.failed)
	}
	a.cfg.Logger.Debug("storage call failed, trying again", "op", a.op, "try", a.failed, "err", err)
	if a.cfg.OnRetry != nil {
		a.cfg.OnRetry(a.op, err)
	}
	timer := time.NewTimer(a.pause.NextBackOff())
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return errors.Join(context.Cause(ctx), err)
	case <-timer.C:
		return nil
	}
}

// errCallTimeout is the cause of a try that took too long.
var errCallTimeout = errors.New("no answer in time")

// bounded runs one try of call under CallTimeout.
func (r *retrier) bounded(ctx context.Context, call func(context.Context) error) error {
	try, cancel := context.WithTimeoutCause(ctx, r.cfg.CallTimeout, errCallTimeout)
	defer cancel()
	err := call(try)
	if err != nil && try.Err() != nil && ctx.Err() == nil {
		return Transient(errors.Join(errCallTimeout, err))
	}
	return err
}

func (r *retrier) loop(ctx context.Context, op string, call func(context.Context) error) error {
	a := r.attempts(op)
	for {
		err := r.bounded(ctx, call)
		if err == nil {
			return nil
		}
		if err = a.again(ctx, err); err != nil {
			return err
		}
	}
}

func (r *retrier) Stat(ctx context.Context, key string) (info Info, err error) {
	err = r.loop(ctx, "stat", func(ctx context.Context) (err error) {
		info, err = r.Store.Stat(ctx, key)
		return err
	})
	return info, err
}

func (r *retrier) Delete(ctx context.Context, keys ...string) error {
	return r.loop(ctx, "delete", func(ctx context.Context) error {
		err := r.Store.Delete(ctx, keys...)
		if failed, ok := errors.AsType[*DeleteError](err); ok {
			keys = keys[:0:0] // only those again
			for key := range failed.Failed {
				keys = append(keys, key)
			}
		}
		return err
	})
}

func (r *retrier) Put(ctx context.Context, key string, body io.Reader, opts PutOptions) (Info, error) {
	seeker, ok := body.(io.Seeker)
	if !ok {
		return r.Store.Put(ctx, key, body, opts)
	}
	start, err := seeker.Seek(0, io.SeekCurrent)
	if err != nil { // an *os.File may be a pipe
		return r.Store.Put(ctx, key, body, opts)
	}
	for a := r.attempts("put"); ; {
		info, err := r.Store.Put(ctx, key, body, opts)
		if err == nil {
			return info, nil
		}
		if err = a.again(ctx, err); err != nil {
			return Info{}, err
		}
		if _, err := seeker.Seek(start, io.SeekStart); err != nil {
			return Info{}, fmt.Errorf("put %s: %w", key, err)
		}
	}
}

func (r *retrier) List(ctx context.Context, prefix, after string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		for a := r.attempts("list"); ; {
			err := r.listOnce(ctx, prefix, &after, a, yield)
			if errors.Is(err, errStopped) || err == nil {
				return
			}
			if err = a.again(ctx, err); err != nil {
				yield(Info{}, err)
				return
			}
		}
	}
}

// errStopped says that the consumer of a listing wants no more.
var errStopped = errors.New("stopped")

func (r *retrier) listOnce(ctx context.Context, prefix string, after *string, a *attempts, yield func(Info, error) bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(r.cfg.CallTimeout, func() { cancel(errCallTimeout) })
	defer watch.Stop()
	for info, err := range r.Store.List(ctx, prefix, *after) {
		watch.Stop()
		if err != nil {
			if errors.Is(context.Cause(ctx), errCallTimeout) {
				return Transient(errors.Join(errCallTimeout, err))
			}
			return err
		}
		a.progress()
		*after = info.Key
		if !yield(info, nil) {
			return errStopped
		}
		watch.Reset(r.cfg.CallTimeout)
	}
	return nil
}
