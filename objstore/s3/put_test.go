package s3

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"strings"
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
