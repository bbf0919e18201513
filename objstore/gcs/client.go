package gcs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"time"

	"cloud.google.com/go/auth/credentials"
	"cloud.google.com/go/auth/httptransport"
	"cloud.google.com/go/storage"
	"google.golang.org/api/option"

	"github.com/ltxstream/ltxstream/objstore"
)

const (
	// answerTimeout bounds the wait for an answer once a request was sent.
	answerTimeout = time.Minute
	// pingAfter is after how long a silence a connection is asked whether it lives.
	pingAfter = 30 * time.Second
)

// newClient returns the SDK's client, and what frees its connections.
func newClient(ctx context.Context, cfg Config) (*storage.Client, func(), error) {
	to, err := cfg.target()
	if err != nil {
		return nil, nil, err
	}
	hc, free := cfg.HTTPClient, func() {}
	if hc == nil {
		base := newTransport()
		free = base.CloseIdleConnections
		hc = &http.Client{Transport: base}
		if !to.anonymous {
			if hc, err = authorized(base); err != nil {
				return nil, nil, err
			}
		}
	}
	watching := *hc
	watching.Transport = watch{base: hc.Transport}
	opts := []option.ClientOption{
		option.WithHTTPClient(&watching),
		option.WithoutAuthentication(), // it is below; else the SDK looks for credentials again, for signing
		storage.WithJSONReads(),        // whose errors say what is missing
		storage.WithDisabledClientMetrics(),
	}
	if to.endpoint != "" {
		opts = append(opts, option.WithEndpoint(to.endpoint))
	}
	c, err := storage.NewClient(ctx, opts...)
	if err != nil {
		return nil, nil, err
	}
	c.SetRetry(storage.WithPolicy(storage.RetryNever))
	return c, free, nil
}

func newTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = 2 * deleteParallel
	t.ResponseHeaderTimeout = answerTimeout
	t.HTTP2 = &http.HTTP2Config{SendPingTimeout: pingAfter}
	return t
}

// authorized returns a client with Application Default Credentials.
func authorized(base http.RoundTripper) (*http.Client, error) {
	creds, err := credentials.DetectDefault(&credentials.DetectOptions{Scopes: []string{storage.ScopeReadWrite}})
	if err != nil {
		return nil, fmt.Errorf("%w: no Google credentials: %v: set GOOGLE_APPLICATION_CREDENTIALS to a file of them, "+
			"run `gcloud auth application-default login`, or run where a service account is attached", fs.ErrPermission, err)
	}
	c, err := httptransport.NewClient(&httptransport.Options{Credentials: creds, BaseRoundTripper: base, DisableTelemetry: true})
	if err != nil {
		return nil, fmt.Errorf("use Google credentials: %w", err)
	}
	return c, nil
}

// watch is the transport right below the SDK. It marks errors of bodies as the
// network's, which the SDK mixes with errors of its own, and it lets a Get have
// one body only: the SDK's reader would open a broken one again by itself, at
// once and without end.
type watch struct{ base http.RoundTripper }

// aGet goes with the requests of one Get, in their context.
type aGet struct {
	hasBody bool
	broke   error // how the body ended, unless at its end
}

type getKey struct{}

func (w watch) RoundTrip(req *http.Request) (*http.Response, error) {
	get, _ := req.Context().Value(getKey{}).(*aGet)
	if get != nil && get.hasBody {
		return nil, cmp.Or(get.broke, io.ErrUnexpectedEOF)
	}
	base := w.base
	if base == nil {
		base = http.DefaultTransport
	}
	resp, err := base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if get != nil {
		get.hasBody = resp.StatusCode < 300 // not a redirection
	}
	resp.Body = &watchedBody{resp.Body, get}
	return resp, nil
}

type watchedBody struct {
	io.ReadCloser
	get *aGet // nil: of another call
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = objstore.Transient(err)
		if b.get != nil {
			b.get.broke = err
		}
	}
	return n, err
}
