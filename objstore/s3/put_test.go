package s3

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/objstore/objstoretest"
)

// isComplete and isPart match requests of a multipart upload.
func isComplete(req *http.Request) bool {
	return req.Method == http.MethodPost && req.URL.Query().Has("uploadId")
}

func isPart(req *http.Request) bool {
	return req.Method == http.MethodPut && req.URL.Query().Has("partNumber")
}

// TestPutRequests: one request for what fits into a part.
func TestPutRequests(t *testing.T) {
	server := start(t)
	faults := objstoretest.NewFaults(nil)
	t.Cleanup(faults.CloseIdleConnections)
	cfg := configOf(server)
	cfg.Transport = faults
	s := open(t, cfg)
	body := make([]byte, 2*minPartSize+1)
	for size, want := range map[int]int64{0: 1, 1: 1, minPartSize - 1: 1, minPartSize: 1, minPartSize + 1: 2 + 2, 2 * minPartSize: 2 + 2, 2*minPartSize + 1: 2 + 3} {
		for name, r := range map[string]io.Reader{"seeker": bytes.NewReader(body[:size]), "stream": io.MultiReader(bytes.NewReader(body[:size]))} {
			before := faults.Requests()
			info, err := s.Put(t.Context(), "a/x.ltx", r, objstore.PutOptions{Timestamp: stamp})
			if got := faults.Requests() - before; err != nil || info.Size != int64(size) || got != want {
				t.Errorf("%s of %d bytes: %d requests, want %d (%+v, %v)", name, size, got, want, info, err)
			}
		}
	}
}

// TestPutLeavesNoDebris: whatever ends a large Put, its upload is aborted, and
// nothing is written to the standard logger.
func TestPutLeavesNoDebris(t *testing.T) {
	server := start(t)
	var logged strings.Builder
	log.SetOutput(&logged)
	defer log.SetOutput(io.Discard)
	faults := objstoretest.NewFaults(nil)
	t.Cleanup(faults.CloseIdleConnections)
	cfg := configOf(server)
	cfg.Transport = faults
	s := open(t, cfg)
	putString(t, s, "a/x.ltx", "first")

	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	long := func() io.Reader { return bytes.NewReader(make([]byte, 3*minPartSize)) }
	for name, c := range map[string]struct {
		ctx  context.Context
		rule objstoretest.Rule
		r    io.Reader
		want kinds
	}{
		"taken":         {t.Context(), objstoretest.Rule{}, long(), kinds{exist: true}},
		"part denied":   {t.Context(), objstoretest.Rule{Fault: objstoretest.Answer(403, "AccessDenied"), Match: isPart, Skip: 1, Times: 1}, long(), kinds{permission: true}},
		"slow down":     {t.Context(), objstoretest.Rule{Fault: objstoretest.Answer(503, "SlowDown"), Match: isComplete, Times: 1}, long(), kinds{transient: true}},
		"other's write": {t.Context(), objstoretest.Rule{Fault: objstoretest.Answer(409, "ConditionalRequestConflict"), Match: isComplete, Times: 1}, long(), kinds{transient: true}},
		"late error":    {t.Context(), objstoretest.Rule{Fault: objstoretest.Answer(200, "InternalError"), Match: isComplete, Times: 1}, long(), kinds{transient: true}},
		"empty answer":  {t.Context(), objstoretest.Rule{Fault: emptyAnswer, Match: isComplete, Times: 1}, long(), kinds{transient: true}},
		"no source":     {t.Context(), objstoretest.Rule{}, io.MultiReader(long(), readerFunc(func([]byte) (int, error) { return 0, cause })), kinds{}},
		"cancelled":     {ctx, objstoretest.Rule{}, io.MultiReader(long(), readerFunc(func([]byte) (int, error) { cancel(cause); return 0, cause })), kinds{}},
	} {
		faults.Set(c.rule)
		_, err := s.Put(c.ctx, "a/x.ltx", c.r, objstore.PutOptions{Timestamp: stamp, IfAbsent: true})
		if hits := faults.Clear(); hits != c.rule.Times {
			t.Errorf("%s: %d requests were broken", name, hits)
		}
		if err == nil || kindsOf(err) != c.want || c.want == (kinds{}) && !errors.Is(err, cause) {
			t.Errorf("%s: %v, want %+v", name, err, c.want)
		}
		out, err := s.client.ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: &s.cfg.Bucket})
		if err != nil || len(out.Uploads) != 0 {
			t.Errorf("%s: %d uploads are left, %v", name, len(out.Uploads), err)
		}
	}
	if b, err := objstore.ReadAll(t.Context(), s, "a/x.ltx"); err != nil || string(b) != "first" {
		t.Errorf("%q, %v", b, err)
	}
	if logged.Len() > 0 {
		t.Errorf("logged %s", &logged)
	}
}

// TestPutCancelledMidPart: a part that the server is still reading when the
// upload is aborted brings it back.
func TestPutCancelledMidPart(t *testing.T) {
	server := start(t)
	late := &latePart{aborted: make(chan struct{}), stored: make(chan struct{})}
	t.Cleanup(late.CloseIdleConnections)
	cfg := configOf(server)
	cfg.Transport = late
	s := open(t, cfg)

	// versitygw lists a part that came late only where its key has another upload.
	other, err := s.client.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: &s.cfg.Bucket, Key: s.object("a/x.ltx")})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	late.begun = func() { cancel(io.ErrClosedPipe) }
	_, err = s.Put(ctx, "a/x.ltx", bytes.NewReader(make([]byte, 2*minPartSize)), objstore.PutOptions{Timestamp: stamp})
	if !errors.Is(err, io.ErrClosedPipe) {
		t.Fatal(err)
	}
	<-late.stored
	out, err := s.client.ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: &s.cfg.Bucket})
	if err != nil || len(out.Uploads) != 1 || *out.Uploads[0].UploadId != *other.UploadId {
		t.Errorf("%d uploads are left, want the other one, %v", len(out.Uploads), err)
	}
	if late.aborts.Load() != 2 {
		t.Errorf("aborted %d times", late.aborts.Load())
	}
}

// latePart is a transport that lets the server have the second half of the
// first part after it has answered the first abort.
type latePart struct {
	http.Transport
	begun           func()        // half of the first part is sent
	aborted, stored chan struct{} // closed then
	once            sync.Once
	aborts          atomic.Int64
}

func (l *latePart) RoundTrip(req *http.Request) (*http.Response, error) {
	switch {
	case isPart(req) && req.URL.Query().Get("partNumber") == "1":
		return l.part(req)
	case req.Method == http.MethodDelete && req.URL.Query().Has("uploadId"):
		resp, err := l.Transport.RoundTrip(req)
		l.aborts.Add(1)
		l.once.Do(func() { close(l.aborted) })
		<-l.stored
		return resp, err
	}
	return l.Transport.RoundTrip(req)
}

func (l *latePart) part(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	behind := req.Clone(context.WithoutCancel(req.Context()))
	half := len(body) / 2
	rest := readerFunc(func([]byte) (int, error) { l.begun(); <-l.aborted; return 0, io.EOF })
	behind.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body[:half]), rest, bytes.NewReader(body[half:])))
	go func() {
		defer close(l.stored)
		if resp, err := l.Transport.RoundTrip(behind); err == nil {
			_ = resp.Body.Close()
		}
	}()
	<-req.Context().Done()
	return nil, req.Context().Err()
}

func emptyAnswer(_ http.RoundTripper, req *http.Request) (*http.Response, error) {
	return answering(200, "").RoundTrip(req)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestPutEmptyAnswer: an upload without a name is no upload.
func TestPutEmptyAnswer(t *testing.T) {
	if err := putParts(t, on(t, answering(200, "")), objstore.PutOptions{}); kindsOf(err) != (kinds{transient: true}) {
		t.Fatal(err)
	}
}

// TestPartSize: it grows where the length is known.
func TestPartSize(t *testing.T) {
	s := on(t, answering(200, ""))
	for length, want := range map[int64]int64{0: minPartSize, 1 << 30: minPartSize, 10_000 * minPartSize: minPartSize, 10_000*minPartSize + 1: minPartSize + 1, 5 << 40: (5<<40 + 9_999) / 10_000} {
		r := &sized{length: length + 7, at: 7}
		if got, err := s.partSize(r); err != nil || got != want || r.at != 7 {
			t.Errorf("%d bytes: parts of %d, want %d, left at %d (%v)", length, got, want, r.at, err)
		}
	}
	if got, err := s.partSize(&sized{broken: true}); err != nil || got != minPartSize {
		t.Errorf("a pipe: %d, %v", got, err)
	}
}

// sized is an io.Seeker of that length.
type sized struct {
	io.Reader
	length, at int64
	broken     bool
}

func (s *sized) Seek(offset int64, whence int) (int64, error) {
	if s.broken {
		return 0, errors.New("illegal seek")
	}
	s.at = map[int]int64{io.SeekStart: 0, io.SeekCurrent: s.at, io.SeekEnd: s.length}[whence] + offset
	return s.at, nil
}
