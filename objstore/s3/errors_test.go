package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/ltxstream/ltxstream/objstore"
)

// roundTrip is a transport without a server.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		_, _ = io.Copy(io.Discard, req.Body)
		req.Body.Close()
	}
	return f(req)
}

// answering answers every request in the same way; a HEAD without the body.
func answering(status int, body string, header ...string) roundTrip {
	return func(req *http.Request) (*http.Response, error) {
		return reply(req, status, body, header...), nil
	}
}

func reply(req *http.Request, status int, body string, header ...string) *http.Response {
	w := httptest.NewRecorder()
	for i := 0; i < len(header); i += 2 {
		w.Header().Set(header[i], header[i+1])
	}
	w.WriteHeader(status)
	if req.Method != http.MethodHead {
		w.WriteString(body)
	}
	resp := w.Result()
	resp.Request, resp.ContentLength = req, int64(w.Body.Len())
	return resp
}

func document(code string) string {
	return "<Error><Code>" + code + "</Code><Message>injected</Message></Error>"
}

// on returns a store on a transport.
func on(t testing.TB, rt http.RoundTripper) *Store {
	t.Helper()
	return open(t, as(Config{Bucket: "b", Prefix: "p", Endpoint: "http://s3.test", PartSize: minPartSize, Transport: rt}, "key", "secret"))
}

var stamp = time.Date(2021, 3, 4, 5, 6, 7, 89_000_000, time.UTC)

func putString(t testing.TB, s *Store, key, body string) {
	t.Helper()
	if _, err := s.Put(t.Context(), key, strings.NewReader(body), objstore.PutOptions{Timestamp: stamp}); err != nil {
		t.Fatal(err)
	}
}

func listErr(ctx context.Context, s *Store) (n int, err error) {
	for _, err := range s.List(ctx, "", "") {
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// putParts is a Put in two parts.
func putParts(t testing.TB, s *Store, opts objstore.PutOptions) error {
	opts.Timestamp = stamp
	_, err := s.Put(t.Context(), "a/x.ltx", bytes.NewReader(make([]byte, minPartSize+2)), opts)
	return err
}

func eachCall(t testing.TB, s *Store, see func(call string, err error)) {
	for _, absent := range []bool{false, true} {
		_, err := s.Put(t.Context(), "a/x.ltx", strings.NewReader("x"), objstore.PutOptions{Timestamp: stamp, IfAbsent: absent})
		see("put", err)
	}
	_, err := objstore.ReadAll(t.Context(), s, "a/x.ltx")
	see("get", err)
	_, err = s.Get(t.Context(), "a/x.ltx", 5, 5)
	see("get range", err)
	_, err = s.Stat(t.Context(), "a/x.ltx")
	see("stat", err)
	_, err = listErr(t.Context(), s)
	see("list", err)
	see("delete", s.Delete(t.Context(), "a/x.ltx", "a/y.ltx"))
}

// kinds of errors.
type kinds struct{ notExist, exist, permission, transient bool }

func kindsOf(err error) kinds {
	return kinds{errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrExist), errors.Is(err, fs.ErrPermission), errors.Is(err, objstore.ErrTransient)}
}

func TestClassify(t *testing.T) {
	permanent, transient, denied := kinds{}, kinds{transient: true}, kinds{permission: true}
	for _, c := range []struct {
		status int
		code   string // "": no document
		want   kinds
	}{
		{404, "", permanent}, // a proxy's, or a wrong endpoint
		{404, "NoSuchBucket", permanent},
		{404, "NoSuchUpload", transient},
		{404, "InvalidAccessKeyId", denied},
		{403, "", denied},
		{403, "AccessDenied", denied},
		{403, "SignatureDoesNotMatch", denied},
		{401, "Unauthorized", denied},
		{400, "ExpiredToken", denied},
		{403, "RequestTimeTooSkewed", transient},
		{400, "", permanent},
		{400, "InvalidArgument", permanent},
		{400, "RequestTimeout", transient},
		{400, "BadDigest", transient},
		{400, "AuthorizationHeaderMalformed", permanent},
		{301, "PermanentRedirect", permanent},
		{307, "TemporaryRedirect", transient},
		{405, "MethodNotAllowed", permanent},
		{409, "OperationAborted", transient},
		{409, "ConditionalRequestConflict", transient}, // not fs.ErrExist: the other one may fail yet
		{412, "PreconditionFailed", kinds{exist: true}},
		{429, "", transient},
		{500, "InternalError", transient},
		{501, "NotImplemented", permanent},
		{502, "", transient},
		{503, "SlowDown", transient},
		{503, "", transient},
		{504, "", transient},
		{200, "InternalError", transient}, // where S3 has found out too late
	} {
		body := ""
		if c.code != "" {
			body = document(c.code)
		}
		eachCall(t, on(t, answering(c.status, body)), func(call string, err error) {
			if c.status == 200 && call != "list" && call != "delete" {
				return // no document in the answer to those
			}
			if call == "stat" && (c.status == 403 || c.status == 409) {
				return // a HEAD has no code
			}
			if err == nil || kindsOf(err) != c.want || !strings.Contains(err.Error(), "p/a/x.ltx") && call != "list" {
				t.Errorf("%s answered with %d %s: %v, which is %+v, want %+v", call, c.status, c.code, err, kindsOf(err), c.want)
			}
		})
	}
}

// TestNotExistHasItsCode: S3's NoSuchKey is the only thing that says so.
func TestNotExistHasItsCode(t *testing.T) {
	s := on(t, answering(404, document("NoSuchKey")))
	_, err := s.Stat(t.Context(), "a/x.ltx")
	_, gerr := s.Get(t.Context(), "a/x.ltx", 0, -1)
	_, zerr := s.Get(t.Context(), "a/x.ltx", 0, 0)
	for _, err := range []error{err, gerr, zerr} {
		if kindsOf(err) != (kinds{notExist: true}) {
			t.Errorf("%v, want fs.ErrNotExist alone", err)
		}
	}
	// a HEAD says 404, and the GET after it that the object is there
	s = on(t, roundTrip(func(req *http.Request) (*http.Response, error) {
		if req.Method == http.MethodHead {
			return reply(req, 404, ""), nil
		}
		return reply(req, 206, "x", "Content-Range", "bytes 0-0/1"), nil
	}))
	if _, err := s.Stat(t.Context(), "a/x.ltx"); kindsOf(err) != (kinds{transient: true}) {
		t.Errorf("%v, want another try", err)
	}
}

// TestErrorCutShort: what S3 wanted to say of an object is not known.
func TestErrorCutShort(t *testing.T) {
	for _, status := range []int{400, 404} {
		_, err := on(t, answering(status, document("NoSuchKey")[:20])).Get(t.Context(), "a/x.ltx", 0, -1)
		if kindsOf(err) != (kinds{transient: true}) {
			t.Errorf("%d: %v", status, err)
		}
	}
}

func TestHints(t *testing.T) {
	for want, rt := range map[string]roundTrip{
		"set region=eu-west-3": answering(301, document("PermanentRedirect"), "X-Amz-Bucket-Region", "eu-west-3"),
		"https://other.test":   answering(301, "", "Location", "https://other.test"),
		"create it":            answering(404, document("NoSuchBucket")),
	} {
		if _, err := on(t, rt).Stat(t.Context(), "a/x.ltx"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}

// TestNoRedirects: a signed request is for one host.
func TestNoRedirects(t *testing.T) {
	for _, status := range []int{301, 302, 307} {
		requests := 0
		s := on(t, roundTrip(func(req *http.Request) (*http.Response, error) {
			if requests++; requests > 1 {
				return nil, errors.New("no more")
			}
			return reply(req, status, "", "Location", "http://elsewhere.test/"), nil
		}))
		if _, err := s.Get(t.Context(), "a/x.ltx", 0, -1); err == nil || requests != 1 {
			t.Errorf("%d: %d requests, %v", status, requests, err)
		}
	}
}

// TestNoRetries: that is objstore.Retry's.
func TestNoRetries(t *testing.T) {
	requests := 0
	s := on(t, roundTrip(func(req *http.Request) (*http.Response, error) {
		requests++
		return reply(req, 503, document("SlowDown")), nil
	}))
	if _, err := s.Get(t.Context(), "a/x.ltx", 0, -1); kindsOf(err) != (kinds{transient: true}) || requests != 1 {
		t.Errorf("%d requests, %v", requests, err)
	}
}

// TestClose: connections of the store's own are closed with it.
func TestClose(t *testing.T) {
	closed := make(chan struct{})
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			close(closed)
		}
	}
	server.Start()
	defer server.Close()
	s := open(t, as(Config{Bucket: "b", Endpoint: server.URL}, "key", "secret"))
	if _, err := s.Stat(t.Context(), "a/x.ltx"); err == nil {
		t.Fatal("no error")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-closed:
	case <-time.After(time.Minute):
		t.Fatal("the connection is still open")
	}
}

// TestUnreadable: an answer that is no S3 answer is worth another try, but never
// a listing, a stored object or a deleted one.
func TestUnreadable(t *testing.T) {
	for name, body := range map[string]string{
		"nothing":     "",
		"cut short":   `<ListBucketResult><Name>b</Name><Conte`,
		"a web page":  `<!DOCTYPE html><html><body>Sign in<br></body></html>`,
		"not its own": `<Other><IsOther>true</IsOther></Other>`,
	} {
		s := on(t, answering(200, body))
		_, err := listErr(t.Context(), s)
		for call, err := range map[string]error{"list": err, "delete": s.Delete(t.Context(), "a/x.ltx"), "put": putParts(t, s, objstore.PutOptions{})} {
			if kindsOf(err) != (kinds{transient: true}) {
				t.Errorf("%s answered with %s: %v, want ErrTransient", call, name, err)
			}
		}
	}
}

func TestTLS(t *testing.T) {
	quiet := func(s *httptest.Server) { s.Config.ErrorLog = log.New(io.Discard, "", 0) }
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	quiet(secure)
	secure.StartTLS()
	defer secure.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	for want, endpoint := range map[string]string{
		"certificate": secure.URL,
		"http":        strings.Replace(plain.URL, "http:", "https:", 1),
	} {
		s := open(t, as(Config{Bucket: "b", Endpoint: endpoint}, "key", "secret"))
		defer s.Close()
		if _, err := s.Stat(t.Context(), "a/x.ltx"); err == nil || kindsOf(err) != (kinds{}) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
	plain.Close()
	s := open(t, as(Config{Bucket: "b", Endpoint: plain.URL}, "key", "secret"))
	defer s.Close()
	if _, err := s.Stat(t.Context(), "a/x.ltx"); kindsOf(err) != (kinds{transient: true}) {
		t.Errorf("connection refused: %v", err)
	}
}

// TestCredentialsComeAndGo: they may be out of reach for a while.
func TestCredentialsComeAndGo(t *testing.T) {
	var perr error
	cfg := Config{Bucket: "b", Endpoint: "http://s3.test", Transport: answering(404, document("NoSuchKey")),
		AWS: &aws.Config{Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "key", SecretAccessKey: "secret", CanExpire: true, Expires: time.Now().Add(-time.Second)}, perr
		})}}
	statErr := func(s *Store, err error) error {
		perr = err
		_, err = s.Stat(t.Context(), "a/x.ltx")
		if perr != nil && !errors.Is(err, perr) {
			t.Errorf("%v does not wrap %v", err, perr)
		}
		return err
	}
	unsent := &smithyhttp.RequestSendError{Err: errors.New("no route to host")}
	imds := &smithy.OperationError{ServiceID: "ec2imds", OperationName: "GetMetadata", Err: unsent}
	sts := &smithy.OperationError{ServiceID: "STS", OperationName: "AssumeRole", Err: unsent}
	refused := &smithy.OperationError{ServiceID: "STS", OperationName: "AssumeRole", Err: &smithy.GenericAPIError{Code: "AccessDenied"}}
	s := open(t, cfg)
	for _, c := range []struct {
		err  error
		want kinds
	}{
		{errors.New("no such profile"), kinds{permission: true}},
		{imds, kinds{permission: true}},
		{sts, kinds{transient: true}},
		{refused, kinds{permission: true}},
		{nil, kinds{notExist: true}},
		{imds, kinds{transient: true}},
		{errors.New("file is being written"), kinds{transient: true}},
	} {
		if err := statErr(s, c.err); kindsOf(err) != c.want {
			t.Errorf("%v with credentials %v, want %+v", err, c.err, c.want)
		}
	}
}

func TestDeleteSaysWhat(t *testing.T) {
	answer := `<DeleteResult><Deleted><Key>p/a/1</Key></Deleted>
<Error><Key>p/a/2</Key><Code>AccessDenied</Code></Error><Error><Key>p/a/3</Key><Code>InternalError</Code></Error>
<Error><Key>p/a/4</Key><Code>NoSuchKey</Code></Error></DeleteResult>`
	err := on(t, answering(200, answer)).Delete(t.Context(), "a/1", "a/2", "a/3", "a/4", "a/5")
	failed, ok := errors.AsType[*objstore.DeleteError](err)
	if !ok || len(failed.Failed) != 3 {
		t.Fatalf("%v", err)
	}
	for key, want := range map[string]kinds{"a/2": {permission: true}, "a/3": {transient: true}, "a/5": {transient: true}} {
		if got := failed.Failed[key]; kindsOf(got) != want {
			t.Errorf("%s: %v, want %+v", key, got, want)
		}
	}
}

// TestDeleteGoesOn: one request that fails does not keep the others.
func TestDeleteGoesOn(t *testing.T) {
	requests := 0
	s := on(t, roundTrip(func(req *http.Request) (*http.Response, error) {
		if requests++; requests == 2 {
			return reply(req, 503, document("SlowDown")), nil
		}
		var answer strings.Builder
		for i := range 2500 {
			fmt.Fprintf(&answer, "<Deleted><Key>p/a/%d</Key></Deleted>", i)
		}
		return reply(req, 200, "<DeleteResult>"+answer.String()+"</DeleteResult>"), nil
	}))
	keys := make([]string, 2500)
	for i := range keys {
		keys[i] = fmt.Sprintf("a/%d", i)
	}
	failed, ok := errors.AsType[*objstore.DeleteError](s.Delete(t.Context(), keys...))
	if !ok || len(failed.Failed) != 1000 || failed.Failed["a/1000"] == nil || failed.Failed["a/1999"] == nil || requests != 3 {
		t.Fatalf("%d requests, %v", requests, failed)
	}
}
