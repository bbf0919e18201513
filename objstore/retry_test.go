package objstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errFlaky = Transient(errors.New("flaky"))

// fake answers each call with the function of that name.
type fake struct {
	get    func(ctx context.Context, offset, size int64) (io.ReadCloser, error)
	stat   func(ctx context.Context) (Info, error)
	put    func(ctx context.Context, r io.Reader) (Info, error)
	list   func(ctx context.Context, after string) iter.Seq2[Info, error]
	delete func(ctx context.Context, keys []string) error
}

func (f *fake) Close() error   { return nil }
func (f *fake) String() string { return "fake://" }
func (f *fake) Get(ctx context.Context, _ string, offset, size int64) (io.ReadCloser, error) {
	return f.get(ctx, offset, size)
}
func (f *fake) Stat(ctx context.Context, _ string) (Info, error) { return f.stat(ctx) }
func (f *fake) Put(ctx context.Context, _ string, r io.Reader, _ PutOptions) (Info, error) {
	return f.put(ctx, r)
}
func (f *fake) List(ctx context.Context, _, after string) iter.Seq2[Info, error] {
	return f.list(ctx, after)
}
func (f *fake) Delete(ctx context.Context, keys ...string) error { return f.delete(ctx, keys) }

// eachRetried runs test once per kind of call, in a bubble of its own time, with a store whose
// calls are all done by try.
func eachRetried(t *testing.T, cfg RetryConfig, test func(t *testing.T, try *func(context.Context) error, call func(context.Context) error)) {
	cfg.Logger = slog.New(slog.DiscardHandler)
	var try func(context.Context) error
	s := Retry(&fake{
		get: func(ctx context.Context, _, _ int64) (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader("")), try(ctx)
		},
		stat: func(ctx context.Context) (Info, error) { return Info{}, try(ctx) },
		put:  func(ctx context.Context, _ io.Reader) (Info, error) { return Info{}, try(ctx) },
		list: func(ctx context.Context, _ string) iter.Seq2[Info, error] {
			return func(yield func(Info, error) bool) {
				if err := try(ctx); err != nil {
					yield(Info{}, err)
				}
			}
		},
		delete: func(ctx context.Context, _ []string) error { return try(ctx) },
	}, cfg)
	for name, call := range map[string]func(context.Context) error{
		"get": func(ctx context.Context) error {
			r, err := s.Get(ctx, "k", 0, -1)
			if err != nil {
				return err
			}
			return r.Close()
		},
		"stat": func(ctx context.Context) error { _, err := s.Stat(ctx, "k"); return err },
		"put": func(ctx context.Context) error {
			_, err := s.Put(ctx, "k", strings.NewReader("x"), PutOptions{})
			return err
		},
		"delete": func(ctx context.Context) error { return s.Delete(ctx, "k") },
		"list": func(ctx context.Context) (err error) {
			for _, err = range s.List(ctx, "", "") {
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, &try, call) })
		})
	}
}

func TestRetriedUntilItSucceeds(t *testing.T) {
	var seen []string
	cfg := RetryConfig{OnRetry: func(op string, err error) {
		if !errors.Is(err, errFlaky) {
			t.Errorf("OnRetry of %s was told %v", op, err)
		}
		seen = append(seen, op)
	}}
	eachRetried(t, cfg, func(t *testing.T, try *func(context.Context) error, call func(context.Context) error) {
		tries := 0
		*try = func(context.Context) error {
			if tries++; tries < DefaultTries {
				return fmt.Errorf("try %d: %w", tries, errFlaky)
			}
			return nil
		}
		seen = nil
		if err := call(t.Context()); err != nil {
			t.Fatal(err)
		}
		op := t.Name()[strings.LastIndex(t.Name(), "/")+1:]
		if tries != DefaultTries || len(seen) != DefaultTries-1 || seen[0] != op {
			t.Fatalf("%d tries, OnRetry was told of %q", tries, seen)
		}
	})
}

func TestRetriedSoManyTimes(t *testing.T) {
	eachRetried(t, RetryConfig{Tries: 3}, func(t *testing.T, try *func(context.Context) error, call func(context.Context) error) {
		tries := 0
		*try = func(context.Context) error { tries++; return errFlaky }
		if err := call(t.Context()); !errors.Is(err, errFlaky) || !errors.Is(err, ErrTransient) || tries != 3 {
			t.Fatalf("%d tries, %v", tries, err)
		}
	})
}

func TestPermanentIsNotRetried(t *testing.T) {
	eachRetried(t, RetryConfig{}, func(t *testing.T, try *func(context.Context) error, call func(context.Context) error) {
		tries := 0
		*try = func(context.Context) error { tries++; return fs.ErrPermission }
		if err := call(t.Context()); !errors.Is(err, fs.ErrPermission) || tries != 1 {
			t.Fatalf("%d tries, %v", tries, err)
		}
	})
}

func TestPausesGrow(t *testing.T) {
	cfg := RetryConfig{Tries: 8, FirstPause: time.Second, MaxPause: 10 * time.Second}
	eachRetried(t, cfg, func(t *testing.T, try *func(context.Context) error, call func(context.Context) error) {
		var pauses []time.Duration
		last := time.Now()
		*try = func(context.Context) error {
			pauses, last = append(pauses, time.Since(last)), time.Now()
			return errFlaky
		}
		_ = call(t.Context())
		mean := []time.Duration{0, 1, 2, 4, 8, 10, 10, 10} // seconds, each within a half and one and a half
		for i, pause := range pauses {
			if want := mean[i] * time.Second; pause < want/2 || pause > want*3/2 {
				t.Errorf("pause %d is %s, want about %s", i, pause, want)
			}
		}
		if len(pauses) != len(mean) {
			t.Fatalf("%d tries", len(pauses))
		}
	})
}

func TestCancelEndsAPause(t *testing.T) {
	cause := errors.New("enough")
	eachRetried(t, RetryConfig{FirstPause: time.Minute, MaxPause: time.Minute}, func(t *testing.T, try *func(context.Context) error, call func(context.Context) error) {
		ctx, cancel := context.WithCancelCause(t.Context())
		tries := 0
		*try = func(context.Context) error {
			tries++
			time.AfterFunc(time.Second, func() { cancel(cause) })
			return errFlaky
		}
		start := time.Now()
		err := call(ctx)
		if !errors.Is(err, cause) || !errors.Is(err, errFlaky) || tries != 1 || time.Since(start) != time.Second {
			t.Fatalf("%d tries, %s, %v", tries, time.Since(start), err)
		}
	})
}

// TestCallTimeout: a try without an answer is ended and another one made, but
// for a Put, which may take as long as it needs.
func TestCallTimeout(t *testing.T) {
	eachRetried(t, RetryConfig{CallTimeout: 30 * time.Second}, func(t *testing.T, try *func(context.Context) error, call func(context.Context) error) {
		tries := 0
		*try = func(ctx context.Context) error {
			if tries++; tries > 1 {
				return nil
			}
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(time.Hour):
				return nil
			}
		}
		start, wantTries := time.Now(), 2
		if strings.HasSuffix(t.Name(), "/put") {
			wantTries = 1
		}
		if err := call(t.Context()); err != nil {
			t.Fatal(err)
		}
		if slow := time.Since(start) >= time.Hour; tries != wantTries || slow != (wantTries == 1) {
			t.Fatalf("%d tries in %s", tries, time.Since(start))
		}
	})
}

// TestCallersDeadline: the end of the caller's context is no call timeout.
func TestCallersDeadline(t *testing.T) {
	cause := errors.New("enough")
	eachRetried(t, RetryConfig{CallTimeout: time.Minute}, func(t *testing.T, try *func(context.Context) error, call func(context.Context) error) {
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, cause)
		defer cancel()
		tries := 0
		*try = func(ctx context.Context) error { tries++; <-ctx.Done(); return context.Cause(ctx) }
		if err := call(ctx); !errors.Is(err, cause) || errors.Is(err, ErrTransient) || tries != 1 {
			t.Fatalf("%d tries, %v", tries, err)
		}
	})
}

func TestPutStartsAgainWhereItStarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []string
		s := Retry(&fake{put: func(_ context.Context, r io.Reader) (Info, error) {
			b, err := io.ReadAll(io.LimitReader(r, int64(2+len(got))))
			if got = append(got, string(b)); len(got) < 3 {
				err = errFlaky
			}
			return Info{}, err
		}}, RetryConfig{})
		body := strings.NewReader("0123456789")
		if _, err := body.Seek(4, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Put(t.Context(), "k", body, PutOptions{}); err != nil || !slices.Equal(got, []string{"45", "456", "4567"}) {
			t.Fatalf("%v, the tries read %q", err, got)
		}
		for _, r := range []io.Reader{io.MultiReader(body), pipe{body}} {
			got = nil
			if _, err := s.Put(t.Context(), "k", r, PutOptions{}); !errors.Is(err, errFlaky) || len(got) != 1 {
				t.Fatalf("a reader that cannot seek: %v, %d tries", err, len(got))
			}
		}
	})
}

// pipe is an io.Seeker as an *os.File of a pipe is one.
type pipe struct{ io.Reader }

func (pipe) Seek(int64, int) (int64, error) { return 0, errors.New("illegal seek") }

func TestDeleteRetriesWhatFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked []string
		s := Retry(&fake{delete: func(_ context.Context, keys []string) error {
			slices.Sort(keys)
			asked = append(asked, strings.Join(keys, ""))
			var failed *DeleteError
			for _, key := range keys {
				switch {
				case key == "d":
					failed = failed.Add(key, fs.ErrPermission)
				case key > "b" && len(asked) == 1, key == "c" && len(asked) == 2:
					failed = failed.Add(key, errFlaky)
				}
			}
			return failed.Err()
		}}, RetryConfig{})
		keys := []string{"a", "b", "c", "d", "e"}
		err := s.Delete(t.Context(), keys...)
		failed, ok := errors.AsType[*DeleteError](err)
		if !ok || len(failed.Failed) != 1 || !errors.Is(failed.Failed["d"], fs.ErrPermission) || errors.Is(err, ErrTransient) {
			t.Errorf("%v, want d alone refused", err)
		}
		if want := []string{"abcde", "cde", "cd"}; !slices.Equal(asked, want) || strings.Join(keys, "") != "abcde" {
			t.Errorf("asked for %q, want %q; the caller's keys are %q", asked, want, keys)
		}
	})
}

// TestListContinues: behind the last key, and with the tries counted anew when
// there was progress.
func TestListContinues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var afters []string
		s := Retry(&fake{list: func(_ context.Context, after string) iter.Seq2[Info, error] {
			return func(yield func(Info, error) bool) {
				afters = append(afters, after)
				if len(afters)%2 == 0 {
					yield(Info{}, errFlaky)
					return
				}
				for n, key := range []string{"a", "b", "c", "d", "e", "f"} {
					if key > after && !yield(Info{Key: key}, nil) {
						return
					}
					if n%2 == 1 && key > after {
						yield(Info{}, errFlaky)
						return
					}
				}
			}
		}}, RetryConfig{Tries: 3})
		got := ""
		for info, err := range s.List(t.Context(), "", "") {
			if err != nil {
				t.Fatal(err)
			}
			got += info.Key
		}
		if got != "abcdef" || strings.Join(afters, " ") != " b b d d f f" {
			t.Fatalf("listed %s, asked behind %q", got, afters)
		}
		for range s.List(t.Context(), "", "") {
			break
		}
	})
}

// TestListConsumerMayBeSlow: CallTimeout is for the pages, not for what the
// caller does with them; and a page that hangs is asked for again.
func TestListConsumerMayBeSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		s := Retry(&fake{list: func(ctx context.Context, after string) iter.Seq2[Info, error] {
			return func(yield func(Info, error) bool) {
				tries++
				if after == "" && (!yield(Info{Key: "a"}, nil) || ctx.Err() != nil) {
					t.Errorf("ended: %v", context.Cause(ctx))
				}
				if tries == 1 {
					<-ctx.Done()
					yield(Info{}, context.Cause(ctx))
					return
				}
				yield(Info{Key: "b"}, nil)
			}
		}}, RetryConfig{CallTimeout: time.Second})
		got := ""
		for info, err := range s.List(t.Context(), "", "") {
			if err != nil {
				t.Fatal(err)
			}
			got += info.Key
			time.Sleep(time.Hour)
		}
		if got != "ab" || tries != 2 {
			t.Fatalf("listed %s in %d tries", got, tries)
		}
	})
}

// bodyFunc is a body that reads by a function.
type bodyFunc struct {
	read   func(p []byte) (int, error)
	closed *int
}

func (b bodyFunc) Read(p []byte) (int, error) { return b.read(p) }
func (b bodyFunc) Close() error               { *b.closed++; return nil }

// bodies is a store of one object whose bodies read as each says; r is what the
// body should yield. It counts what was opened and closed.
type bodies struct {
	object         string
	opened, closed int
	asked          []string
	read           func(ctx context.Context, nth int, r io.Reader, p []byte) (int, error)
}

func (b *bodies) get(ctx context.Context, offset, size int64) (io.ReadCloser, error) {
	b.opened++
	b.asked = append(b.asked, fmt.Sprintf("%d+%d", offset, size))
	object := b.object[min(offset, int64(len(b.object))):]
	if size >= 0 {
		object = object[:min(size, int64(len(object)))]
	}
	nth, r := b.opened, bytes.NewReader([]byte(object))
	return bodyFunc{func(p []byte) (int, error) { return b.read(ctx, nth, r, p) }, &b.closed}, nil
}

// some reads at most n bytes, and then fails with err.
func some(n *int, r io.Reader, p []byte, err error) (int, error) {
	if *n == 0 {
		return 0, err
	}
	k, rerr := r.Read(p[:min(len(p), *n)])
	*n -= k
	return k, rerr
}

func readAll(t *testing.T, b *bodies, offset, size int64) (string, error) {
	t.Helper()
	s := Retry(&fake{get: b.get}, RetryConfig{Tries: 3, CallTimeout: time.Second})
	r, err := s.Get(t.Context(), "k", offset, size)
	if err != nil {
		return "", err
	}
	got, err := io.ReadAll(r)
	if cerr := r.Close(); cerr != nil {
		t.Error(cerr)
	}
	if b.opened != b.closed {
		t.Errorf("%d bodies opened, %d closed", b.opened, b.closed)
	}
	if n, err := r.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("read after Close: %d, %v", n, err)
	}
	return string(got), err
}

func TestBodyContinues(t *testing.T) {
	const object = "0123456789abcdefghij"
	permanent := errors.New("damaged")
	for name, c := range map[string]struct {
		offset, size int64
		err          error // each body ends with, after 4 bytes
		together     bool  // with the last bytes
		want         string
		asked        string
		wantErr      error
	}{
		"whole":                  {0, -1, errFlaky, false, object, "0+-1 4+-1 8+-1 12+-1 16+-1 20+-1", nil},
		"range":                  {2, 10, errFlaky, false, object[2:12], "2+10 6+6 10+2", nil},
		"range of what it gives": {2, 4, errFlaky, false, object[2:6], "2+4", nil},
		"past the end":           {15, 10, errFlaky, false, object[15:], "15+10 19+6", nil},
		"error with bytes":       {2, 10, errFlaky, true, object[2:12], "2+10 6+6 10+2", nil},
		"lost with io.EOF":       {2, 10, Transient(fmt.Errorf("no answer: %w", io.EOF)), false, object[2:12], "2+10 6+6 10+2", nil},
		"permanent":              {2, 10, permanent, false, object[2:6], "2+10", permanent},
		"permanent with bytes":   {2, -1, permanent, true, object[2:6], "2+-1", permanent},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &bodies{object: object}
				left, of := 0, 0
				b.read = func(_ context.Context, nth int, r io.Reader, p []byte) (int, error) {
					if of != nth {
						left, of = 4, nth
					}
					n, err := some(&left, r, p, c.err)
					if c.together && left == 0 {
						err = c.err
					}
					return n, err
				}
				got, err := readAll(t, b, c.offset, c.size)
				if got != c.want || !errors.Is(err, c.wantErr) || strings.Join(b.asked, " ") != c.asked {
					t.Fatalf("%q, %v, asked for %q; want %q, %v, %q", got, err, b.asked, c.want, c.wantErr, c.asked)
				}
			})
		})
	}
}

func TestBodyWithoutProgressEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bodies{object: "0123", read: func(context.Context, int, io.Reader, []byte) (int, error) { return 0, errFlaky }}
		if _, err := readAll(t, b, 0, -1); !errors.Is(err, errFlaky) || b.opened != 3 {
			t.Fatalf("%d tries, %v", b.opened, err)
		}
	})
}

// TestBodyStalls: a read that hangs is ended and the body continued; a consumer
// may take its time between two reads.
func TestBodyStalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bodies{object: "0123456789"}
		left := 3
		b.read = func(ctx context.Context, nth int, r io.Reader, p []byte) (int, error) {
			if nth > 1 {
				return r.Read(p)
			}
			n, err := some(&left, r, p, nil)
			if n == 0 {
				<-ctx.Done()
				err = context.Cause(ctx)
			}
			return n, err
		}
		if got, err := readAll(t, b, 0, -1); got != "0123456789" || err != nil || b.asked[1] != "3+-1" {
			t.Fatalf("%q, %v, asked for %q", got, err, b.asked)
		}

		b = &bodies{object: "0123456789", read: func(ctx context.Context, nth int, r io.Reader, p []byte) (int, error) {
			if ctx.Err() != nil {
				return 0, context.Cause(ctx)
			}
			return r.Read(p)
		}}
		r, err := Retry(&fake{get: b.get}, RetryConfig{CallTimeout: time.Second}).Get(t.Context(), "k", 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for range 10 {
			if _, err := io.ReadFull(r, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
		}
		if b.opened != 1 {
			t.Fatalf("%d bodies", b.opened)
		}
	})
}

// TestBodyTimesOutAsItAnswers: the time is up while a read succeeds; the next
// one, of a context that has ended by our doing, is continued like any other.
func TestBodyTimesOutAsItAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bodies{object: "0123456789"}
		b.read = func(ctx context.Context, nth int, r io.Reader, p []byte) (int, error) {
			if nth > 1 {
				return r.Read(p)
			}
			if ctx.Err() != nil {
				return 0, context.Cause(ctx)
			}
			time.Sleep(2 * time.Second)
			return r.Read(p[:1])
		}
		if got, err := readAll(t, b, 0, -1); got != "0123456789" || err != nil || b.opened != 2 {
			t.Fatalf("%q, %v, %d bodies", got, err, b.opened)
		}
	})
}

func TestBodyOfACancelledContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bodies{object: "0123456789", read: func(ctx context.Context, _ int, _ io.Reader, _ []byte) (int, error) {
			<-ctx.Done()
			return 0, context.Cause(ctx)
		}}
		cause := errors.New("enough")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, cause)
		defer cancel()
		r, err := Retry(&fake{get: b.get}, RetryConfig{}).Get(ctx, "k", 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if _, err := r.Read(make([]byte, 1)); !errors.Is(err, cause) || errors.Is(err, ErrTransient) || b.opened != 1 {
			t.Fatalf("%v, %d bodies", err, b.opened)
		}
	})
}
