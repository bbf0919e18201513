package objstoretest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

// Faults is an http.RoundTripper that counts the requests it passes on and,
// where a [Rule] says so, breaks them. It is safe for concurrent use.
type Faults struct {
	base     http.RoundTripper
	requests atomic.Int64
	mu       struct {
		sync.Mutex
		rule   Rule
		seen   int // requests that the rule matched
		hits   int // of these, the broken ones
		ranges []string
	}
}

// Rule says which requests are broken, and how.
type Rule struct {
	Fault Fault
	Match func(*http.Request) bool // nil: every request counts
	Skip  int                      // so many pass first
	Times int                      // so many are broken then; Always: all
}

// Always as Rule.Times breaks every request.
const Always = -1

// Fault does one request in its own way. It owns req.Body like a RoundTripper.
type Fault func(base http.RoundTripper, req *http.Request) (*http.Response, error)

// NewFaults wraps base; nil: a transport of its own.
func NewFaults(base http.RoundTripper) *Faults {
	if base == nil {
		base = http.DefaultTransport.(*http.Transport).Clone()
	}
	return &Faults{base: base}
}

// Requests is how many requests came so far, the broken ones among them.
func (f *Faults) Requests() int64 { return f.requests.Load() }

// Set replaces the rule, and forgets the hits and ranges of the last one.
func (f *Faults) Set(r Rule) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.rule, f.mu.seen, f.mu.hits, f.mu.ranges = r, 0, 0, nil
}

// Next breaks the next times requests.
func (f *Faults) Next(times int, fault Fault) { f.Set(Rule{Fault: fault, Times: times}) }

// Clear lets everything pass again, and returns how many requests were broken.
func (f *Faults) Clear() (hits int) {
	f.mu.Lock()
	hits = f.mu.hits
	f.mu.Unlock()
	f.Set(Rule{})
	return hits
}

// Ranges are the byte ranges ("bytes=5-", "" for none) that were asked for
// since the last Set, one per request.
func (f *Faults) Ranges() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.mu.ranges...)
}

func (f *Faults) RoundTrip(req *http.Request) (*http.Response, error) {
	f.requests.Add(1)
	if fault := f.next(req); fault != nil {
		return fault(f.base, req)
	}
	return f.base.RoundTrip(req)
}

// next is the fault of this request, or nil.
func (f *Faults) next(req *http.Request) Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	asked := req.Header.Get("Range")
	if azure := req.Header.Get("x-ms-range"); azure != "" {
		asked = azure
	}
	f.mu.ranges = append(f.mu.ranges, asked)
	r := f.mu.rule
	if r.Fault == nil || r.Match != nil && !r.Match(req) {
		return nil
	}
	f.mu.seen++
	if f.mu.seen <= r.Skip || r.Times != Always && f.mu.seen > r.Skip+r.Times {
		return nil
	}
	f.mu.hits++
	return r.Fault
}

// CloseIdleConnections is what http.Client's method of that name calls.
func (f *Faults) CloseIdleConnections() {
	if c, ok := f.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// Answer answers with an XML error document, and the server sees nothing. (A
// JSON service answers like that too, when it is its front end that is busy.)
func Answer(status int, code string) Fault {
	return func(_ http.RoundTripper, req *http.Request) (*http.Response, error) {
		closeBody(req)
		return answer(req, status, code), nil
	}
}

// AnswerAfter lets the server do the request, and replaces what it says.
func AnswerAfter(status int, code string) Fault {
	return func(base http.RoundTripper, req *http.Request) (*http.Response, error) {
		resp, err := base.RoundTrip(req)
		if err != nil {
			return nil, err
		}
		return answer(req, status, code), resp.Body.Close()
	}
}

func answer(req *http.Request, status int, code string) *http.Response {
	body := fmt.Sprintf(`<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>injected</Message></Error>`, code)
	if req.Method == http.MethodHead {
		body = ""
	}
	return &http.Response{
		Status: fmt.Sprintf("%d %s", status, http.StatusText(status)), StatusCode: status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/xml"}},
		Body:   io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
		Request: req,
	}
}

// ResetBefore loses the connection before the server has seen the request.
func ResetBefore(_ http.RoundTripper, req *http.Request) (*http.Response, error) {
	closeBody(req)
	return nil, errReset()
}

// EOFBefore is a connection that the server closed without an answer.
func EOFBefore(_ http.RoundTripper, req *http.Request) (*http.Response, error) {
	closeBody(req)
	return nil, io.EOF
}

// ResetAfter loses the answer: the server has done the request.
func ResetAfter(base http.RoundTripper, req *http.Request) (*http.Response, error) {
	resp, err := base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	resp.Body.Close()
	return nil, errReset()
}

// Hang gives no answer until the request's context ends.
func Hang(_ http.RoundTripper, req *http.Request) (*http.Response, error) {
	closeBody(req)
	<-req.Context().Done()
	return nil, context.Cause(req.Context())
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		req.Body.Close()
	}
}

// errReset is what a lost connection looks like.
func errReset() error {
	return &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", syscall.ECONNRESET)}
}

// CutBody ends the body of the answer after n bytes with err: what net/http
// says (io.ErrUnexpectedEOF), a reset (nil here), or io.EOF, which is a proxy
// that does not keep to the length it announced.
func CutBody(n int64, err error) Fault {
	if err == nil {
		err = errReset()
	}
	return withBody(func(req *http.Request, r io.ReadCloser) io.ReadCloser {
		return &cutBody{ReadCloser: r, left: n, end: func() error { return err }}
	})
}

// StallBody gives n bytes of the body and then nothing, until the request's
// context ends or the body is closed.
func StallBody(n int64) Fault {
	return withBody(func(req *http.Request, r io.ReadCloser) io.ReadCloser {
		b := &cutBody{ReadCloser: r, left: n, closed: make(chan struct{})}
		b.end = func() error {
			select {
			case <-req.Context().Done():
				return context.Cause(req.Context())
			case <-b.closed:
				return os.ErrClosed
			}
		}
		return b
	})
}

func withBody(wrap func(*http.Request, io.ReadCloser) io.ReadCloser) Fault {
	return func(base http.RoundTripper, req *http.Request) (*http.Response, error) {
		resp, err := base.RoundTrip(req)
		if err == nil {
			resp.Body = wrap(req, resp.Body)
		}
		return resp, err
	}
}

type cutBody struct {
	io.ReadCloser
	left   int64
	end    func() error
	closed chan struct{} // nil: nobody waits for it
	once   sync.Once
}

func (b *cutBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, b.end()
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

func (b *cutBody) Close() error {
	if b.closed != nil {
		b.once.Do(func() { close(b.closed) })
	}
	return b.ReadCloser.Close()
}
