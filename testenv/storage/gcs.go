package storage

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/testenv/child"
)

// GCSDenied is the bearer token that a [GCS] answers with 403; it asks for no
// other one.
const GCSDenied = "denied"

const gcsReady = 30 * time.Second

// GCS is a fake-gcs-server (in memory) behind a front that does what the fake
// leaves out: it refuses the token [GCSDenied], and takes a piece of a
// resumable upload that it has seen already for what it is (the fake would
// append it again).
type GCS struct {
	// URL is the endpoint, "http://127.0.0.1:port".
	URL string
	// Emulator is the server behind the front, for clients that read through the
	// XML API: a value of STORAGE_EMULATOR_HOST.
	Emulator string

	requests atomic.Int64
	mu       struct {
		sync.Mutex
		pieces map[string]gcsPiece // answers, by upload and range
	}
}

// gcsPiece is the answer to a piece of an upload.
type gcsPiece struct {
	header http.Header
	body   []byte
}

// StartGCS runs a server with the given buckets until the end of the test.
func StartGCS(t testing.TB, buckets ...string) *GCS {
	t.Helper()
	bin := Find(t, "bin/fake-gcs-server")
	var fake string
	for attempt := 0; fake == ""; attempt++ { // a free port may be taken by the time it is used
		var err error
		if fake, err = startFakeGCS(t, bin); err != nil && attempt == 2 {
			t.Fatal(err)
		}
	}
	target, err := url.Parse(fake)
	if err != nil {
		t.Fatal(err)
	}
	g := &GCS{Emulator: target.Host}
	g.mu.pieces = map[string]gcsPiece{}
	back := http.DefaultTransport.(*http.Transport).Clone()
	back.MaxIdleConnsPerHost = 64
	t.Cleanup(back.CloseIdleConnections)
	front := httptest.NewServer(g.front(&httputil.ReverseProxy{
		Transport: back,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // uploads are sent on to where this says
		},
		ModifyResponse: g.keepPiece,
		ErrorHandler:   func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}))
	t.Cleanup(front.Close)
	g.URL = front.URL
	for _, name := range buckets {
		createGCSBucket(t, front.Client(), g.URL, name)
	}
	return g
}

// Requests is how many requests came so far.
func (g *GCS) Requests() int64 { return g.requests.Load() }

// gcsScript runs a server that ends when the script's standard input does. (A
// command in the background would get another input than 3.)
const gcsScript = `exec 3<&0; "$@" 2>&1 3<&- & s=$!; (read -r _; kill -9 $s) <&3 >/dev/null 2>&1 & exec 3<&-; wait $s`

// startFakeGCS returns the URL of a new server.
func startFakeGCS(t testing.TB, bin string) (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	addr := ln.Addr().String()
	ln.Close()
	_, port, _ := net.SplitHostPort(addr)
	started, once := make(chan struct{}), sync.Once{}
	var log bytes.Buffer
	p, err := child.StartCommand(exec.Command("sh", "-c", gcsScript, "sh", bin, "-backend", "memory", "-scheme", "http",
		"-host", "127.0.0.1", "-port", port, "-public-host", addr, "-log-level", "info"),
		func(line []byte) {
			if strings.Contains(string(line), "server started") {
				once.Do(func() { close(started) })
			}
			if log.Len() < 4<<10 {
				log.Write(line)
			}
		})
	if err != nil {
		return "", err
	}
	stop := func() {
		ctx, cancel := context.WithTimeout(context.Background(), gcsReady)
		defer cancel()
		_ = p.Stop(ctx) // killed: never clean
	}
	timeout := time.NewTimer(gcsReady)
	defer timeout.Stop()
	select {
	case <-started:
		t.Cleanup(stop)
		return "http://" + addr, nil
	case <-p.Done():
		stop()
		return "", fmt.Errorf("fake-gcs-server ended: %s", &log)
	case <-timeout.C:
		stop()
		return "", fmt.Errorf("fake-gcs-server is not ready after %s", gcsReady)
	}
}

func createGCSBucket(t testing.TB, c *http.Client, endpoint, name string) {
	t.Helper()
	resp, err := c.Post(endpoint+"/storage/v1/b?project=test", "application/json", strings.NewReader(`{"name":"`+name+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("create bucket %s: %s", name, resp.Status)
	}
}

func (g *GCS) front(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.requests.Add(1)
		if r.Header.Get("Authorization") == "Bearer "+GCSDenied {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"error":{"code":403,"message":"the caller may not do that","errors":[{"reason":"forbidden","domain":"global"}]}}`)
			return
		}
		if piece, ok := g.seen(r); ok {
			_, _ = io.Copy(io.Discard, r.Body)
			for name, values := range piece.header {
				w.Header()[name] = values
			}
			_, _ = w.Write(piece.body)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// gcsPieceName identifies a piece of a resumable upload; "": it is none.
func gcsPieceName(r *http.Request) string {
	id := r.URL.Query().Get("upload_id")
	if id == "" {
		return ""
	}
	return id + " " + r.Header.Get("Content-Range")
}

func (g *GCS) seen(r *http.Request) (gcsPiece, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	piece, ok := g.mu.pieces[gcsPieceName(r)]
	return piece, ok
}

func (g *GCS) keepPiece(resp *http.Response) error {
	name := gcsPieceName(resp.Request)
	if name == "" || resp.StatusCode != http.StatusOK {
		return nil
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.pieces[name] = gcsPiece{resp.Header.Clone(), body}
	return nil
}
