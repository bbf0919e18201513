package gcs

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/ltxstream/ltxstream/objstore"
)

const credentialsEnv = "GOOGLE_APPLICATION_CREDENTIALS"

// serviceAccount writes a file of credentials whose tokens come from tokenURL.
func serviceAccount(t *testing.T, tokenURL string) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(map[string]string{
		"type": "service_account", "project_id": "test", "private_key_id": "1", "client_id": "1",
		"client_email": "archiver@test.example", "token_uri": tokenURL,
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "credentials.json")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// roundTrip is a transport made of a function.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func answer(req *http.Request, status int, body string) *http.Response {
	return &http.Response{
		StatusCode: status, Status: http.StatusText(status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}}, ContentLength: int64(len(body)),
		Body: io.NopCloser(strings.NewReader(body)), Request: req,
	}
}

// TestCredentials goes the way of Application Default Credentials.
func TestCredentials(t *testing.T) {
	for _, c := range []struct {
		name, body string
		status     int
		want       error // nil: the token is used
	}{
		{"token", `{"access_token":"t0ken","token_type":"Bearer","expires_in":3600}`, http.StatusOK, nil},
		{"refused", `{"error":"invalid_grant","error_description":"account gone"}`, http.StatusBadRequest, fs.ErrPermission},
		{"busy", `busy`, http.StatusServiceUnavailable, objstore.ErrTransient},
	} {
		t.Run(c.name, func(t *testing.T) {
			tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			}))
			defer tokens.Close()
			t.Setenv(credentialsEnv, serviceAccount(t, tokens.URL))
			var sent string
			hc, err := authorized(roundTrip(func(req *http.Request) (*http.Response, error) {
				sent = req.Header.Get("Authorization")
				return answer(req, http.StatusOK, `{"name":"a.ltx","size":"5"}`), nil
			}))
			if err != nil {
				t.Fatal(err)
			}
			info, err := open(t, Config{Bucket: "b", HTTPClient: hc}).Stat(t.Context(), "a.ltx")
			if c.want == nil {
				if err != nil || info.Size != 5 || sent != "Bearer t0ken" {
					t.Fatalf("%+v, %v with %q", info, err, sent)
				}
				return
			}
			if !errors.Is(err, c.want) || errors.Is(err, fs.ErrPermission) && errors.Is(err, objstore.ErrTransient) {
				t.Fatalf("%v, want %v", err, c.want)
			}
		})
	}
}

// TestCredentialsMissing: they are wanted at New, but not for plain http.
func TestCredentialsMissing(t *testing.T) {
	t.Setenv(credentialsEnv, filepath.Join(t.TempDir(), "none.json"))
	t.Setenv(emulatorEnv, "")
	for _, endpoint := range []string{"", "https://storage.example"} {
		_, err := New(t.Context(), Config{Bucket: "b", Endpoint: endpoint})
		if !errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), credentialsEnv) {
			t.Errorf("endpoint %q: %v, want fs.ErrPermission that says what to set", endpoint, err)
		}
	}
	var sent []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent = append(sent, r.Header.Get("Authorization"))
		_, _ = io.WriteString(w, `{"name":"a.ltx","size":"5"}`)
	}))
	defer server.Close()
	s := open(t, Config{Bucket: "b", Endpoint: server.URL})
	defer s.Close()
	if _, err := s.Stat(t.Context(), "a.ltx"); err != nil || len(sent) != 1 || sent[0] != "" {
		t.Errorf("%v, sent %q, want one request without credentials", err, sent)
	}
}

// answering opens a store that gets the same answer to every request.
func answering(t *testing.T, body func() io.ReadCloser, length int) *Store {
	t.Helper()
	return open(t, Config{Bucket: "b", HTTPClient: &http.Client{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
		if req.Body != nil {
			_, _ = io.Copy(io.Discard, req.Body)
			req.Body.Close()
		}
		resp := answer(req, http.StatusOK, strings.Repeat(" ", length))
		resp.Body = body()
		return resp, nil
	})}})
}

// broken is a body that ends with an error that says nothing of its kind.
type broken struct{ io.Reader }

func (b broken) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		err = errors.New("stream error 42")
	}
	return n, err
}

// TestBrokenAnswers: what a transport says of a body is the network's fault.
func TestBrokenAnswers(t *testing.T) {
	t.Parallel()
	s := answering(t, func() io.ReadCloser { return io.NopCloser(broken{strings.NewReader(`{"name":"a.ltx"`)}) }, 100)
	check := func(call string, err error) {
		if !errors.Is(err, objstore.ErrTransient) || !strings.Contains(err.Error(), "stream error 42") {
			t.Errorf("%s: %v, want objstore.ErrTransient that says why", call, err)
		}
	}
	_, err := s.Stat(t.Context(), "a.ltx")
	check("stat", err)
	_, err = objstore.ReadAll(t.Context(), s, "a.ltx")
	check("get", err)
	for _, err = range s.List(t.Context(), "", "") {
	}
	check("list", err)
	_, err = s.Put(t.Context(), "a.ltx", strings.NewReader("x"), objstore.PutOptions{Timestamp: stamp})
	check("put", err)
}

// TestShortAnswers: JSON that ends before its end may come whole another time.
func TestShortAnswers(t *testing.T) {
	t.Parallel()
	const short = `{"name":"a.ltx"`
	s := answering(t, func() io.ReadCloser { return io.NopCloser(strings.NewReader(short)) }, len(short))
	if _, err := s.Stat(t.Context(), "a.ltx"); !errors.Is(err, objstore.ErrTransient) {
		t.Errorf("stat: %v, want objstore.ErrTransient", err)
	}
}

// TestRangeIgnored: no more bytes than were asked for.
func TestRangeIgnored(t *testing.T) {
	t.Parallel()
	s := answering(t, func() io.ReadCloser { return io.NopCloser(strings.NewReader("0123456789")) }, 10)
	r, err := s.Get(t.Context(), "a.ltx", 0, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, err := io.ReadAll(r); err != nil || string(b) != "012" {
		t.Errorf("%q, %v, want 012", b, err)
	}
}

// TestStoredShort: a Put is done only when all of it is there.
func TestStoredShort(t *testing.T) {
	t.Parallel()
	const object = `{"name":"a.ltx","size":"4"}`
	s := answering(t, func() io.ReadCloser { return io.NopCloser(strings.NewReader(object)) }, len(object))
	_, err := s.Put(t.Context(), "a.ltx", strings.NewReader("01234"), objstore.PutOptions{Timestamp: stamp})
	if err == nil || !strings.Contains(err.Error(), "4 bytes of 5") {
		t.Errorf("%v, want an error that says how much", err)
	}
}

// TestNothingIsFetchedForNothing: an empty range does not begin a download.
func TestNothingIsFetchedForNothing(t *testing.T) {
	t.Parallel()
	var media int
	s := open(t, Config{Bucket: "b", HTTPClient: &http.Client{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
		if req.URL.Query().Get("alt") == "media" {
			media++
		}
		return answer(req, http.StatusOK, `{"name":"a.ltx","size":"5"}`), nil
	})}})
	r, err := s.Get(t.Context(), "a.ltx", 2, 0)
	if err != nil || media != 0 {
		t.Fatalf("%v, %d downloads", err, media)
	}
	if b, err := io.ReadAll(r); err != nil || len(b) != 0 {
		t.Errorf("%q, %v", b, err)
	}
}

// TestRedirection: another address for the body is no second body.
func TestRedirection(t *testing.T) {
	t.Parallel()
	s := open(t, Config{Bucket: "b", HTTPClient: &http.Client{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
		if req.URL.Host == "elsewhere.example" {
			return answer(req, http.StatusOK, "body"), nil
		}
		resp := answer(req, http.StatusTemporaryRedirect, "")
		resp.Header.Set("Location", "https://elsewhere.example/x")
		return resp, nil
	})}})
	if b, err := objstore.ReadAll(t.Context(), s, "a.ltx"); err != nil || string(b) != "body" {
		t.Errorf("%q, %v", b, err)
	}
}

// TestSmallPutIsSmall: it must not cost the memory of a large one.
func TestSmallPutIsSmall(t *testing.T) {
	const object, puts = `{"name":"a.ltx","size":"5"}`, 10
	s := answering(t, func() io.ReadCloser { return io.NopCloser(strings.NewReader(object)) }, len(object))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range puts {
		if _, err := s.Put(t.Context(), "a.ltx", strings.NewReader("01234"), objstore.PutOptions{Timestamp: stamp}); err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / puts; each > 1<<20 {
		t.Errorf("%d bytes of memory for 5 of content", each)
	}
}

// TestEmulator: the environment names a server where the URL does not.
func TestEmulator(t *testing.T) {
	serve := func(size string) *httptest.Server {
		return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"name":"a.ltx","size":"`+size+`"}`)
		}))
	}
	emulator, other := serve("1"), serve("2")
	defer emulator.Close()
	defer other.Close()
	t.Setenv(credentialsEnv, filepath.Join(t.TempDir(), "none.json"))
	for _, env := range []string{emulator.URL, strings.TrimPrefix(emulator.URL, "http://")} {
		t.Setenv(emulatorEnv, env)
		for endpoint, want := range map[string]int64{"": 1, other.URL: 2} {
			s := open(t, Config{Bucket: "b", Endpoint: endpoint})
			if info, err := s.Stat(t.Context(), "a.ltx"); err != nil || info.Size != want {
				t.Errorf("%s=%s, endpoint %q: %+v, %v, want the one of size %d", emulatorEnv, env, endpoint, info, err, want)
			}
			s.Close()
		}
	}
}
