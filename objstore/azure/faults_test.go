package azure

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/ltxstream/ltxstream/objstore"
)

// gate lets requests through that need not wait.
type gate struct {
	http.RoundTripper
	before func(*http.Request) (*http.Response, error) // nil, nil: let it through
}

func (g gate) RoundTrip(req *http.Request) (*http.Response, error) {
	if resp, err := g.before(req); resp != nil || err != nil {
		return resp, err
	}
	return g.RoundTripper.RoundTrip(req)
}

func answerWith(req *http.Request, status int, code, body string) *http.Response {
	return &http.Response{
		StatusCode: status, Status: fmt.Sprint(status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: req,
		Header: http.Header{"X-Ms-Error-Code": {code}, "X-Ms-Request-Id": {"r1"}},
		Body:   io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
	}
}

// fake opens a store whose requests answer serves.
func fake(t *testing.T, answer func(*http.Request) (*http.Response, error)) *Store {
	t.Helper()
	return fakeConfig(t, Config{}, answer)
}

func fakeConfig(t *testing.T, cfg Config, answer func(*http.Request) (*http.Response, error)) *Store {
	t.Helper()
	cfg.Account, cfg.Container, cfg.Prefix, cfg.SASToken = "account", "archive", "p", "sv=1&sig=secret"
	cfg.Transport = gate{before: answer}
	return openConfig(t, cfg)
}

// kinds are the errors that callers of a store branch on.
var kinds = map[string]error{"exists": fs.ErrExist, "missing": fs.ErrNotExist, "denied": fs.ErrPermission, "transient": objstore.ErrTransient}

func kindOf(err error) string {
	var is []string
	for _, name := range []string{"exists", "missing", "denied", "transient"} {
		if errors.Is(err, kinds[name]) {
			is = append(is, name)
		}
	}
	return strings.Join(is, "+")
}

// eachCall makes one call of each method.
func eachCall(ctx context.Context, s *Store, see func(call string, err error)) {
	_, err := s.Put(ctx, "a/x.ltx", strings.NewReader("x"), objstore.PutOptions{Timestamp: stamp})
	see("put", err)
	_, err = s.Get(ctx, "a/x.ltx", 0, -1)
	see("get", err)
	_, err = s.Stat(ctx, "a/x.ltx")
	see("stat", err)
	for _, err = range s.List(ctx, "a/", "") {
	}
	see("list", err)
	see("delete", s.Delete(ctx, "a/x.ltx"))
}

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		status int
		code   string
		want   string
	}{
		{404, "BlobNotFound", "missing"},
		{404, "ContainerNotFound", ""},
		{404, "ResourceNotFound", ""},
		{404, "", ""},
		{403, "AuthenticationFailed", "denied"},
		{403, "AuthorizationPermissionMismatch", "denied"},
		{403, "", "denied"},
		{401, "InvalidAuthenticationInfo", "denied"},
		{409, "BlobAlreadyExists", "exists"},
		{412, "ConditionNotMet", "exists"},
		{412, "LeaseIdMissing", ""},
		{409, "SnapshotsPresent", ""},
		{409, "BlobImmutableDueToPolicy", ""},
		{400, "InvalidHeaderValue", ""},
		{400, "InvalidBlockList", "transient"},
		{408, "", "transient"},
		{429, "", "transient"},
		{500, "InternalError", "transient"},
		{500, "OperationTimedOut", "transient"},
		{501, "NotImplemented", ""},
		{502, "", "transient"},
		{503, "ServerBusy", "transient"},
		{504, "", "transient"},
	} {
		t.Run(fmt.Sprint(c.status, c.code), func(t *testing.T) {
			const body = "<?xml version=\"1.0\"?><Error><Code>c</Code><Message>the reason\nRequestId:r1</Message></Error>"
			tries := 0
			s := fake(t, func(req *http.Request) (*http.Response, error) {
				tries++
				return answerWith(req, c.status, c.code, body), nil
			})
			eachCall(t.Context(), s, func(call string, err error) {
				if call == "delete" && c.code == "BlobNotFound" {
					if err != nil {
						t.Errorf("delete of nothing: %v", err)
					}
					return
				}
				if kindOf(err) != c.want || err == nil {
					t.Errorf("%s: %v is %q, want %q", call, err, kindOf(err), c.want)
				}
				if text := fmt.Sprint(err); !strings.Contains(text, fmt.Sprint(c.status)) || !strings.Contains(text, c.code) || !strings.Contains(text, "the reason") || strings.ContainsAny(text, "\n<") {
					t.Errorf("%s: the text is %q", call, text)
				}
			})
			if tries != 5 {
				t.Errorf("%d requests for 5 calls", tries)
			}
		})
	}
}

func TestNetwork(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"refused":     {&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, "transient"},
		"reset":       {&net.OpError{Op: "read", Err: syscall.ECONNRESET}, "transient"},
		"no host":     {&net.DNSError{Name: "account", IsNotFound: true}, "transient"},
		"closed":      {io.EOF, "transient"},
		"cut short":   {io.ErrUnexpectedEOF, "transient"},
		"server idle": {errors.New("http: server closed idle connection"), "transient"},
	} {
		t.Run(name, func(t *testing.T) {
			s := fake(t, func(*http.Request) (*http.Response, error) { return nil, c.err })
			eachCall(t.Context(), s, func(call string, err error) {
				if kindOf(err) != c.want || !errors.Is(err, c.err) && call != "delete" {
					t.Errorf("%s: %v is %q, want %q", call, err, kindOf(err), c.want)
				}
				if strings.Contains(err.Error(), "secret") {
					t.Errorf("%s tells the token: %v", call, err)
				}
			})
		})
	}
}

// TestCertificate: one that nobody vouches for does not get better.
func TestCertificate(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	cfg := Config{Account: "account", Container: "archive", Key: "a2V5", Endpoint: srv.URL}
	s := openConfig(t, cfg)
	defer s.Close()
	if _, err := s.Stat(t.Context(), "a/x.ltx"); err == nil || kindOf(err) != "" {
		t.Errorf("%v is %q, want a plain error", err, kindOf(err))
	}
}

// failingCredential has no token to give.
type failingCredential struct{ err error }

func (f failingCredential) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{}, f.err
}

func TestTokens(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"unavailable": {errors.New("nothing is set up"), "denied"},
		"refused":     {&azidentity.AuthenticationFailedError{RawResponse: &http.Response{StatusCode: 401, Body: http.NoBody}}, "denied"},
		"ill":         {&azidentity.AuthenticationFailedError{RawResponse: &http.Response{StatusCode: 503, Body: http.NoBody}}, "transient"},
		"no answer":   {&azidentity.AuthenticationFailedError{}, "transient"},
		"network":     {&url.Error{Op: "Post", URL: "https://login", Err: syscall.ECONNRESET}, "transient"},
	} {
		t.Run(name, func(t *testing.T) {
			s := openConfig(t, Config{Account: "account", Container: "archive", Credential: failingCredential{c.err}, Transport: gate{before: func(req *http.Request) (*http.Response, error) {
				t.Errorf("a request without a token: %s %s", req.Method, req.URL)
				return nil, errors.New("no")
			}}})
			eachCall(t.Context(), s, func(call string, err error) {
				if kindOf(err) != c.want || !errors.Is(err, c.err) {
					t.Errorf("%s: %v is %q, want %q", call, err, kindOf(err), c.want)
				}
			})
		})
	}
}

// TestNoCredentials: the look around for an identity ends soon, in an error
// that says what to set, and its requests go through the Transport.
func TestNoCredentials(t *testing.T) {
	t.Setenv("PATH", t.TempDir()) // without az, azd and pwsh
	var asked []string
	s := openConfig(t, Config{Account: "account", Container: "archive", Transport: gate{before: func(req *http.Request) (*http.Response, error) {
		asked = append(asked, req.URL.Host)
		return nil, &net.OpError{Op: "dial", Err: syscall.EHOSTUNREACH}
	}}})
	_, err := s.Stat(t.Context(), "a/x.ltx")
	if kindOf(err) != "denied" || !strings.Contains(err.Error(), "AZURE_STORAGE_KEY") {
		t.Errorf("%v is %q", err, kindOf(err))
	}
	for _, host := range asked {
		if host != "169.254.169.254" {
			t.Errorf("asked %s", host)
		}
	}
	t.Logf("%d requests, %v", len(asked), err)
}

// TestMemory: a streamed Put holds as much of its source as is documented.
func TestMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const blocks, atOnce = 40, 3
		source := &endless{}
		var done, sending atomic.Int64
		s := fakeConfig(t, Config{BlockSize: MinBlockSize, Concurrency: atOnce}, func(req *http.Request) (*http.Response, error) {
			if n := sending.Add(1); n > atOnce {
				t.Errorf("%d requests at once", n)
			}
			time.Sleep(time.Second) // until all else waits: the source is read as far as there is room
			if held := source.n.Load() - done.Load()*MinBlockSize; held > atOnce*MinBlockSize {
				t.Errorf("%d bytes are held", held)
			}
			sending.Add(-1)
			if comp(req) == "block" {
				done.Add(1)
			}
			return answerWith(req, 201, "", ""), nil
		})
		if _, err := s.Put(t.Context(), "a/x.ltx", io.LimitReader(source, blocks*MinBlockSize+1), objstore.PutOptions{Timestamp: stamp}); err != nil || done.Load() != blocks+1 {
			t.Errorf("%d blocks, %v", done.Load(), err)
		}
	})
}

// TestSourceFails: neither hanging requests nor a source that still gives hold
// a Put that has failed.
func TestSourceFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fakeConfig(t, Config{BlockSize: MinBlockSize}, func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			return nil, req.Context().Err()
		})
		start, broken := time.Now(), errors.New("the source broke")
		_, err := s.Put(t.Context(), "a/x.ltx", io.MultiReader(noise(1, 2*MinBlockSize), failing{broken}), objstore.PutOptions{Timestamp: stamp})
		if took := time.Since(start); !errors.Is(err, broken) || kindOf(err) != "" || took > 0 {
			t.Errorf("%v after %s", err, took)
		}
	})
	s := fake(t, func(*http.Request) (*http.Response, error) { return nil, errors.New("a request") })
	ctx, cancel := context.WithCancelCause(t.Context())
	source, cause := &endless{}, errors.New("enough")
	after := readFunc(func(p []byte) (int, error) { cancel(cause); return source.Read(p[:1]) })
	if _, err := s.Put(ctx, "a/x.ltx", after, objstore.PutOptions{Timestamp: stamp}); !errors.Is(err, cause) || source.n.Load() > 1 {
		t.Errorf("%v after %d bytes", err, source.n.Load())
	}
}

// TestSourceOfContext: a source that knows less of the context than we do.
func TestSourceOfContext(t *testing.T) {
	for name, before := range map[string]int64{"first block": 10, "later block": 2 * MinBlockSize} {
		ctx, cancel := context.WithCancelCause(t.Context())
		cause := errors.New("enough")
		source := readFunc(func(p []byte) (int, error) { cancel(cause); return 0, ctx.Err() })
		s := fakeConfig(t, Config{BlockSize: MinBlockSize}, func(req *http.Request) (*http.Response, error) {
			return answerWith(req, 201, "", ""), nil
		})
		_, err := s.Put(ctx, "a/x.ltx", io.MultiReader(noise(1, before), source), objstore.PutOptions{Timestamp: stamp})
		if !errors.Is(err, cause) || kindOf(err) != "" {
			t.Errorf("%s: %v, want the cause", name, err)
		}
	}
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// TestBlocksTaken: another writer's commit drops the blocks of ours.
func TestBlocksTaken(t *testing.T) {
	s := fakeConfig(t, Config{BlockSize: MinBlockSize}, func(req *http.Request) (*http.Response, error) {
		switch {
		case req.Method == http.MethodHead:
			return answerWith(req, 404, "BlobNotFound", ""), nil
		case comp(req) == "blocklist":
			return answerWith(req, 400, "InvalidBlockList", ""), nil
		}
		return answerWith(req, 201, "", ""), nil
	})
	for ifAbsent, want := range map[bool]string{true: "exists", false: "transient"} {
		_, err := s.Put(t.Context(), "a/x.ltx", noise(1, 2*MinBlockSize), objstore.PutOptions{Timestamp: stamp, IfAbsent: ifAbsent})
		if kindOf(err) != want || strings.Count(err.Error(), "a/x.ltx") != 1 {
			t.Errorf("if absent %t: %v is %q, want %q", ifAbsent, err, kindOf(err), want)
		}
	}
}

// TestBodies: a body that is not what was asked for is never taken for it.
func TestBodies(t *testing.T) {
	const whole = "0123456789"
	for name, c := range map[string]struct {
		offset, size int64
		change       func(*http.Response)
		want, kind   string
	}{
		"good":          {4, 3, func(r *http.Response) { r.StatusCode = 206; r.Header.Set("Content-Range", "bytes 4-6/10") }, whole[4:7], ""},
		"range ignored": {4, 3, func(r *http.Response) { r.Body, r.ContentLength = io.NopCloser(strings.NewReader(whole)), 10 }, "", "error"},
		"another range": {4, 3, func(r *http.Response) { r.StatusCode = 206; r.Header.Set("Content-Range", "bytes 40-42/99") }, "", "error"},
		"cut short": {0, -1, func(r *http.Response) {
			r.Header.Set("Content-Length", "10")
			r.Body = io.NopCloser(strings.NewReader(whole[:6]))
		}, whole[:6], "transient"},
		"broken": {0, -1, func(r *http.Response) {
			r.Body = io.NopCloser(io.MultiReader(strings.NewReader("01"), failing{errors.New("malformed chunked encoding")}))
		}, "01", "transient"},
		"behind the end": {40, -1, func(r *http.Response) { r.StatusCode = 416; r.Header.Set("X-Ms-Error-Code", "InvalidRange") }, "", ""},
		"size that overran": {4, 1<<63 - 1, func(r *http.Response) {
			r.StatusCode = 206
			r.Header.Set("Content-Range", "bytes 4-9/10")
			r.Body = io.NopCloser(strings.NewReader(whole[4:]))
		}, whole[4:], ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := fake(t, func(req *http.Request) (*http.Response, error) {
				if asked := fmt.Sprint(req.Header); c.size > 100 && !strings.Contains(asked, "[bytes=4-]") {
					t.Errorf("asked for %s", asked)
				}
				resp := answerWith(req, 200, "", whole[4:7])
				c.change(resp)
				return resp, nil
			})
			got, err := func() (string, error) {
				r, err := s.Get(t.Context(), "a/x.ltx", c.offset, c.size)
				if err != nil {
					return "", err
				}
				defer r.Close()
				b, err := io.ReadAll(r)
				return string(b), err
			}()
			if got != c.want || (err != nil) != (c.kind != "") || c.kind != "error" && kindOf(err) != c.kind {
				t.Errorf("%q, %v, want %q, %s", got, err, c.want, c.kind)
			}
		})
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func page(names ...string) string {
	var b strings.Builder
	b.WriteString("<?xml version=\"1.0\"?><EnumerationResults><Blobs>")
	for _, name := range names {
		kind := "file"
		if strings.HasSuffix(name, "/") {
			name, kind = strings.TrimSuffix(name, "/"), "directory"
		}
		fmt.Fprintf(&b, "<Blob><Name>p/%s</Name><Properties><Content-Length>1</Content-Length><ResourceType>%s</ResourceType></Properties></Blob>", name, kind)
	}
	b.WriteString("</Blobs><NextMarker/></EnumerationResults>")
	return b.String()
}

// TestListings of services that differ from the emulator.
func TestListings(t *testing.T) {
	for name, c := range map[string]struct {
		page, after, want string
		fails             bool
	}{
		"startFrom unknown": {page("a", "b", "c"), "b", "c", false},
		"directories":       {page("a/", "a/b", "c"), "", "a/b c", false},
		"not in order":      {page("a/b", "a-b"), "", "a/b", true},
		"twice":             {page("a", "a"), "", "a", true},
		"nothing":           {page(), "", "", false},
		"no listing":        {"<html></html>", "", "", true},
		"cut short":         {page("a")[:60], "", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			s := fake(t, func(req *http.Request) (*http.Response, error) {
				if q := req.URL.Query(); q.Get("startFrom") != map[bool]string{true: "p/" + c.after}[c.after != ""] {
					t.Errorf("startFrom %q for after %q", q.Get("startFrom"), c.after)
				}
				return answerWith(req, 200, "", c.page), nil
			})
			var keys []string
			var failed error
			for info, err := range s.List(t.Context(), "", c.after) {
				if failed = err; err == nil {
					keys = append(keys, info.Key)
				}
			}
			if got := strings.Join(keys, " "); got != c.want || (failed != nil) != c.fails {
				t.Errorf("%q, %v, want %q", got, failed, c.want)
			}
		})
	}
}

// TestCause: the cause of a context is what comes back, from any depth.
func TestCause(t *testing.T) {
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	s := fake(t, func(req *http.Request) (*http.Response, error) {
		cancel(cause)
		<-req.Context().Done()
		return nil, req.Context().Err()
	})
	eachCall(ctx, s, func(call string, err error) {
		if !errors.Is(err, cause) || kindOf(err) != "" {
			t.Errorf("%s: %v is %q, want the cause", call, err, kindOf(err))
		}
	})

	s = fake(t, func(req *http.Request) (*http.Response, error) {
		return answerWith(req, 200, "", "all of it is here"), nil
	})
	ctx, cancel = context.WithCancelCause(t.Context())
	r, err := s.Get(ctx, "a/x.ltx", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	cancel(cause)
	if n, err := r.Read(make([]byte, 5)); n > 0 || !errors.Is(err, cause) {
		t.Errorf("read after the end: %d, %v, want the cause", n, err)
	}
}

// TestClose: nothing stays open. (Servers close what was left; only here would
// it show.)
func TestClose(t *testing.T) {
	closed := make(chan struct{}, 9)
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	srv.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			closed <- struct{}{}
		}
	}
	srv.Start()
	defer srv.Close()
	s := openConfig(t, Config{Account: "account", Container: "archive", Key: aKey, Endpoint: srv.URL})
	if _, err := s.Stat(t.Context(), "a/x.ltx"); err == nil {
		t.Error("stat of nothing succeeded")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	select {
	case <-closed:
	case <-time.After(time.Minute):
		t.Error("the connection is still open")
	}
}

// TestDeleteError names each key that stayed, those that were never tried
// included.
func TestDeleteError(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	s := fake(t, func(req *http.Request) (*http.Response, error) {
		switch {
		case strings.HasSuffix(req.URL.Path, "1"):
			return answerWith(req, 503, "ServerBusy", ""), nil
		case strings.HasSuffix(req.URL.Path, "2"):
			return answerWith(req, 403, "AuthorizationFailure", ""), nil
		}
		return answerWith(req, 202, "", ""), nil
	})
	err := s.Delete(ctx, "a/0", "a/1", "a/2", "a/3", "not a key")
	failed, ok := errors.AsType[*objstore.DeleteError](err)
	if !ok || len(failed.Failed) != 3 || kindOf(failed.Failed["a/1"]) != "transient" || kindOf(failed.Failed["a/2"]) != "denied" || !errors.Is(failed.Failed["not a key"], fs.ErrInvalid) {
		t.Errorf("%v", err)
	}
	cancel(errors.New("enough"))
	if failed, ok = errors.AsType[*objstore.DeleteError](s.Delete(ctx, "a/0", "a/1")); !ok || len(failed.Failed) != 2 {
		t.Errorf("cancelled: %v", failed)
	}
}

// TestSilence: a Put that is never answered ends by itself.
func TestSilence(t *testing.T) {
	for name, size := range map[string]int64{"whole": 10, "streamed": 3 * MinBlockSize} {
		synctest.Test(t, func(t *testing.T) {
			s := fakeConfig(t, Config{BlockSize: MinBlockSize}, func(req *http.Request) (*http.Response, error) {
				<-req.Context().Done()
				return nil, req.Context().Err()
			})
			start := time.Now()
			_, err := s.Put(t.Context(), "a/x.ltx", noise(1, size), objstore.PutOptions{Timestamp: stamp})
			if took := time.Since(start); kindOf(err) != "transient" || took < time.Minute || took > 5*time.Minute {
				t.Errorf("%s: %v after %s", name, err, took)
			}
		})
	}
}
