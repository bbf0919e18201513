package objstoretest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/objstore"
)

// faultSuite is one store whose requests can be broken, bare and with Retry.
type faultSuite struct {
	faults  *Faults
	bare    objstore.Store
	retried objstore.Store
	retries atomic.Int64 // of retried, as OnRetry tells
}

const (
	faultTries = 4
	// faultTimeout is the CallTimeout: long enough for any machine.
	faultTimeout = time.Minute
	// hangTimeout is that where requests hang, for each costs it.
	hangTimeout = 3 * time.Second
	// faultStream is the size of a Put that takes several requests where the
	// backend's parts are small.
	faultStream = 12 << 20
)

// RunFaults breaks requests below a backend: every call must come right through
// [objstore.Retry], and without it end in an error of the right kind. open
// returns a store whose HTTP requests all go through rt, on the given prefix of
// an existing bucket; parts of a streamed Put should be 5 MiB or less. The suite
// closes the store.
//
// An SDK that tries again by itself is fine as long as it gives up soon.
func RunFaults(t *testing.T, open func(t testing.TB, rt http.RoundTripper, prefix string) objstore.Store) {
	cases := []struct {
		name    string
		run     func(*testing.T, *faultSuite)
		timeout time.Duration
	}{
		{"Retried", testFaultsRetried, faultTimeout},
		{"Bare", testFaultsBare, faultTimeout},
		{"Hang", testFaultsHang, hangTimeout},
		{"CutBody", testFaultsCutBody, faultTimeout},
		{"StallBody", testFaultsStallBody, hangTimeout},
		{"CutListing", testFaultsCutListing, faultTimeout},
		{"LostCommit", testFaultsLostCommit, faultTimeout},
		{"Streamed", testFaultsStreamed, faultTimeout},
		{"Permanent", testFaultsPermanent, faultTimeout},
		{"Storm", testFaultsStorm, faultTimeout},
	}
	t.Run("Faults", func(t *testing.T) { // returns when all have ended
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel() // they wait more than they work
				c.run(t, newFaultSuite(t, c.timeout, open))
			})
		}
	})
}

func newFaultSuite(t *testing.T, timeout time.Duration, open func(t testing.TB, rt http.RoundTripper, prefix string) objstore.Store) *faultSuite {
	x := &faultSuite{faults: NewFaults(nil)}
	t.Cleanup(x.faults.CloseIdleConnections)
	x.bare = open(t, x.faults, fmt.Sprintf("faults%d-%x", prefixes.Add(1), rand.Uint32()))
	t.Cleanup(func() {
		if err := x.bare.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	x.retried = objstore.Retry(x.bare, objstore.RetryConfig{
		Tries: faultTries, FirstPause: time.Millisecond, MaxPause: 10 * time.Millisecond, CallTimeout: timeout,
		Logger: slog.New(slog.DiscardHandler), OnRetry: func(string, error) { x.retries.Add(1) },
	})
	return x
}

// transientFaults are the ways to lose a request that are worth another try.
func transientFaults() map[string]Fault {
	return map[string]Fault{
		"500":          Answer(http.StatusInternalServerError, "InternalError"),
		"503 slowdown": Answer(http.StatusServiceUnavailable, "SlowDown"),
		"429":          Answer(http.StatusTooManyRequests, "TooManyRequests"),
		"reset before": ResetBefore,
		"eof before":   EOFBefore,
		"reset after":  ResetAfter,
		"502 after":    AnswerAfter(http.StatusBadGateway, "BadGateway"),
	}
}

// faultCall is one call and the check of what came of it.
type faultCall struct {
	name string
	do   func(t *testing.T, s objstore.Store) error
	// check looks, without faults, at what the call has left; nil: nothing to see.
	check func(t *testing.T, s objstore.Store)
}

// faultBody is the object that calls read.
var faultBody = content(5, 100_000)

// faultCalls are all calls but the conditional Put. Each may run on what the
// others have left.
func faultCalls() []faultCall {
	return []faultCall{
		{"put", func(t *testing.T, s objstore.Store) error {
			info, err := s.Put(t.Context(), "a/put.ltx", bytes.NewReader(faultBody), objstore.PutOptions{Timestamp: stamp})
			if err == nil && (info.Size != int64(len(faultBody)) || info.Key != "a/put.ltx") {
				t.Errorf("put says %+v", info)
			}
			return err
		}, func(t *testing.T, s objstore.Store) { wantContent(t, s, "a/put.ltx", faultBody) }},
		{"stat", func(t *testing.T, s objstore.Store) error {
			info, err := s.Stat(t.Context(), "b/x.ltx")
			if err == nil && (info.Size != int64(len(faultBody)) || info.Key != "b/x.ltx") {
				t.Errorf("stat says %+v", info)
			}
			return err
		}, nil},
		{"stat of nothing", func(t *testing.T, s objstore.Store) error {
			_, err := s.Stat(t.Context(), "b/none.ltx")
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return errors.Join(err, errors.New("want fs.ErrNotExist"))
		}, nil},
		{"get", func(t *testing.T, s objstore.Store) error { return getFaulty(t, s, 0, -1) }, nil},
		{"get range", func(t *testing.T, s objstore.Store) error { return getFaulty(t, s, 1000, 5000) }, nil},
		{"list", func(t *testing.T, s objstore.Store) error {
			var keys []string
			for info, err := range s.List(t.Context(), "l/", "") {
				if err != nil {
					return err
				}
				keys = append(keys, info.Key)
			}
			if got := strings.Join(keys, " "); got != "l/1.ltx l/2.ltx l/3.ltx" {
				t.Errorf("listed %q", got)
			}
			return nil
		}, nil},
		{"delete", func(t *testing.T, s objstore.Store) error {
			return s.Delete(t.Context(), "a/put.ltx", "d/none.ltx")
		}, func(t *testing.T, s objstore.Store) {
			if got := listKeys(t, s, "a/", ""); got != "" {
				t.Errorf("left %q", got)
			}
		}},
	}
}

// getFaulty reads [offset, offset+size) of b/x.ltx; wrong bytes fail the test.
func getFaulty(t *testing.T, s objstore.Store, offset, size int64) error {
	t.Helper()
	r, err := s.Get(t.Context(), "b/x.ltx", offset, size)
	if err != nil {
		return err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	want := faultBody[offset:]
	if size >= 0 {
		want = want[:size]
	}
	if !bytes.Equal(b, want) {
		t.Errorf("[%d,+%d): read %d bytes, want %d, or other ones", offset, size, len(b), len(want))
	}
	return nil
}

// fill puts what faultCalls read.
func (x *faultSuite) fill(t *testing.T) {
	put(t, x.bare, "b/x.ltx", faultBody)
	for _, key := range []string{"l/1.ltx", "l/2.ltx", "l/3.ltx"} {
		putString(t, x.bare, key, "x")
	}
}

// broken runs call under the rule and fails the test if no request was hit.
func (x *faultSuite) broken(t *testing.T, r Rule, call func() error) error {
	t.Helper()
	x.retries.Store(0)
	x.faults.Set(r)
	err := call()
	if x.faults.Clear() == 0 {
		t.Errorf("no request was broken")
	}
	return err
}

func testFaultsRetried(t *testing.T, x *faultSuite) {
	x.fill(t)
	for name, fault := range transientFaults() {
		for _, c := range faultCalls() {
			for _, times := range []int{1, faultTries - 1} {
				t.Run(fmt.Sprintf("%s/%s/%d", name, c.name, times), func(t *testing.T) {
					err := x.broken(t, Rule{Fault: fault, Times: times}, func() error { return c.do(t, x.retried) })
					if err != nil {
						t.Fatal(err)
					}
					if c.check != nil {
						c.check(t, x.bare)
					}
				})
			}
		}
	}
}

// testFaultsBare: without Retry the caller learns that another try may help.
func testFaultsBare(t *testing.T, x *faultSuite) {
	x.fill(t)
	for name, fault := range transientFaults() {
		for _, c := range faultCalls() {
			err := x.broken(t, Rule{Fault: fault, Times: Always}, func() error { return c.do(t, x.bare) })
			wantTransient(t, name+"/"+c.name, err)
		}
		opts := objstore.PutOptions{Timestamp: stamp, IfAbsent: true}
		err := x.broken(t, Rule{Fault: fault, Times: Always}, func() error {
			_, err := x.bare.Put(t.Context(), "n/"+strings.ReplaceAll(name, " ", "-")+".ltx", strings.NewReader("x"), opts)
			return err
		})
		wantTransient(t, name+"/put if absent", err)
	}
}

// wantTransient: ErrTransient and nothing that callers branch on.
func wantTransient(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, objstore.ErrTransient) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrPermission) {
		t.Errorf("%s: %v, want ErrTransient alone", what, err)
	}
}

// testFaultsHang: a request without an answer is ended by the CallTimeout.
func testFaultsHang(t *testing.T, x *faultSuite) {
	x.fill(t)
	for _, c := range faultCalls() {
		if c.name == "put" {
			continue // bounded by its context alone
		}
		if err := x.broken(t, Rule{Fault: Hang, Times: 1}, func() error { return c.do(t, x.retried) }); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// testFaultsCutBody: a body that breaks off is an error, never a short object,
// and continued where it broke.
func testFaultsCutBody(t *testing.T, x *faultSuite) {
	x.fill(t)
	size := int64(len(faultBody))
	for name, cut := range map[string]error{"unexpected eof": io.ErrUnexpectedEOF, "reset": nil, "silent eof": io.EOF} {
		for _, n := range []int64{0, 1, 3000, size - 1} {
			what := fmt.Sprintf("%s after %d", name, n)
			x.resumed(t, what, CutBody(n, cut), 0, -1, n)
			if n <= 3000 {
				x.resumed(t, what+" of a range", CutBody(n, cut), 2000, 3001, 2000+n)
			}
		}
		for _, n := range []int64{0, 40_000} {
			err := x.broken(t, Rule{Fault: CutBody(n, cut), Times: Always}, func() error { return getFaulty(t, x.bare, 0, -1) })
			if err != nil || n == 0 { // an SDK that continues by itself comes to the end, and getFaulty has compared the bytes
				wantTransient(t, fmt.Sprintf("%s after %d", name, n), err)
			}
		}
	}
}

// resumed reads a range through one fault and wants it continued at offset at.
func (x *faultSuite) resumed(t *testing.T, what string, fault Fault, offset, size, at int64) {
	t.Helper()
	x.faults.Next(1, fault)
	err := getFaulty(t, x.retried, offset, size)
	ranges := x.faults.Ranges()
	if x.faults.Clear() != 1 || err != nil {
		t.Errorf("%s: %v", what, err)
	}
	if at == 0 {
		return // from the start: with or without a range
	}
	if want := fmt.Sprintf("bytes=%d-", at); len(ranges) != 2 || !strings.HasPrefix(ranges[1], want) {
		t.Errorf("%s: asked for %q, want the second to begin with %s", what, ranges, want)
	}
}

func testFaultsStallBody(t *testing.T, x *faultSuite) {
	x.fill(t)
	for _, n := range []int64{0, 40_000} {
		start := time.Now()
		x.resumed(t, fmt.Sprintf("stall after %d", n), StallBody(n), 0, -1, n)
		if took := time.Since(start); took < hangTimeout/2 {
			t.Errorf("stall after %d: went on after %s", n, took)
		}
	}
}

// testFaultsCutListing: the answer to List breaks off. What is left of it must
// not pass for a listing, above all not the nothing.
func testFaultsCutListing(t *testing.T, x *faultSuite) {
	x.fill(t)
	i := slices.IndexFunc(faultCalls(), func(c faultCall) bool { return c.name == "list" })
	list := faultCalls()[i]
	for name, cut := range map[string]error{"unexpected eof": io.ErrUnexpectedEOF, "reset": nil, "silent eof": io.EOF} {
		for _, n := range []int64{0, 1, 25} {
			err := x.broken(t, Rule{Fault: CutBody(n, cut), Times: 1}, func() error { return list.do(t, x.retried) })
			if err != nil {
				t.Errorf("%s after %d: %v", name, n, err)
			}
			if x.retries.Load() == 0 {
				t.Errorf("%s after %d: taken for a listing", name, n)
			}
		}
	}
}

// testFaultsLostCommit: the first try was stored and its answer lost.
func testFaultsLostCommit(t *testing.T, x *faultSuite) {
	for i, fault := range []Fault{ResetAfter, AnswerAfter(http.StatusServiceUnavailable, "SlowDown")} {
		key := fmt.Sprintf("a/%d.ltx", i)
		err := x.broken(t, Rule{Fault: fault, Times: 1}, func() error {
			_, err := x.retried.Put(t.Context(), key, bytes.NewReader(faultBody), objstore.PutOptions{Timestamp: stamp, IfAbsent: true})
			return err
		})
		if !errors.Is(err, fs.ErrExist) {
			t.Errorf("put if absent, answer lost: %v, want fs.ErrExist", err)
		}
		wantContent(t, x.bare, key, faultBody)
	}
}

// testFaultsStreamed breaks each request of a Put in parts, one after another.
func testFaultsStreamed(t *testing.T, x *faultSuite) {
	body := content(6, faultStream)
	stored := func(key string, opts objstore.PutOptions) error {
		opts.Timestamp = stamp
		info, err := x.retried.Put(t.Context(), key, bytes.NewReader(body), opts)
		if err == nil && info.Size != faultStream {
			t.Errorf("put says %+v", info)
		}
		return err
	}
	before := x.faults.Requests()
	if err := stored("a/x.ltx", objstore.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	requests := int(x.faults.Requests() - before)
	for name, fault := range map[string]Fault{
		"503": Answer(http.StatusServiceUnavailable, "SlowDown"), "reset": ResetBefore, "lost answer": ResetAfter,
	} {
		for skip := range requests {
			key := fmt.Sprintf("s/%s/%d.ltx", strings.ReplaceAll(name, " ", "-"), skip)
			err := x.broken(t, Rule{Fault: fault, Skip: skip, Times: 1}, func() error {
				return stored(key, objstore.PutOptions{IfAbsent: true})
			})
			if err != nil && !(name == "lost answer" && errors.Is(err, fs.ErrExist)) {
				t.Errorf("%s in request %d of %d: %v", name, skip+1, requests, err)
				continue
			}
			wantContent(t, x.bare, key, body)
			if err := x.bare.Delete(t.Context(), key); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// testFaultsPermanent: what another try cannot mend is not tried again.
func testFaultsPermanent(t *testing.T, x *faultSuite) {
	x.fill(t)
	for _, c := range faultCalls() {
		for status, code := range map[int]string{http.StatusForbidden: "AccessDenied", http.StatusBadRequest: "InvalidArgument"} {
			err := x.broken(t, Rule{Fault: Answer(status, code), Times: Always}, func() error { return c.do(t, x.retried) })
			if err == nil || errors.Is(err, objstore.ErrTransient) || errors.Is(err, fs.ErrPermission) != (status == http.StatusForbidden) {
				t.Errorf("%s answered with %d: %v", c.name, status, err)
			}
			if n := x.retries.Load(); n != 0 {
				t.Errorf("%s answered with %d was tried again %d times", c.name, status, n)
			}
		}
	}
	wantContent(t, x.bare, "b/x.ltx", faultBody)
}

// testFaultsStorm: faults without end are not answered with tries without end.
func testFaultsStorm(t *testing.T, x *faultSuite) {
	x.fill(t)
	for _, c := range faultCalls() {
		before := x.faults.Requests()
		err := x.broken(t, Rule{Fault: Answer(http.StatusServiceUnavailable, "SlowDown"), Times: Always}, func() error { return c.do(t, x.retried) })
		wantTransient(t, c.name, err)
		if n := x.retries.Load(); n != faultTries-1 {
			t.Errorf("%s: tried again %d times, want %d", c.name, n, faultTries-1)
		}
		if n := x.faults.Requests() - before; n < faultTries {
			t.Errorf("%s: %d requests, want at least %d", c.name, n, faultTries)
		}
	}
}
