package gcs

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"google.golang.org/api/googleapi"

	"github.com/ltxstream/ltxstream/objstore"
)

func TestClassify(t *testing.T) {
	t.Parallel()
	reason := func(code int, reason string) error {
		return &googleapi.Error{Code: code, Errors: []googleapi.ErrorItem{{Reason: reason}}}
	}
	status := func(code int) error { return &googleapi.Error{Code: code} }
	for _, c := range []struct {
		name string
		err  error
		want error // nil: permanent
	}{
		{"400", status(400), nil},
		{"401", status(401), fs.ErrPermission},
		{"403", reason(403, "forbidden"), fs.ErrPermission},
		{"403 rate", reason(403, "rateLimitExceeded"), objstore.ErrTransient},
		{"403 user rate", reason(403, "userRateLimitExceeded"), objstore.ErrTransient},
		{"403 retention", reason(403, "retentionPolicyNotMet"), fs.ErrPermission},
		{"408", status(408), objstore.ErrTransient},
		{"410", status(410), objstore.ErrTransient},
		{"412", status(412), fs.ErrExist},
		{"413", status(413), nil},
		{"429", status(429), objstore.ErrTransient},
		{"500", status(500), objstore.ErrTransient},
		{"503", fmt.Errorf("chunk: %w", status(503)), objstore.ErrTransient},
		{"504", status(504), objstore.ErrTransient},
		{"network", &url.Error{Op: "Get", URL: "http://h", Err: &net.OpError{Op: "dial", Err: errors.New("refused")}}, objstore.ErrTransient},
		{"http2", &url.Error{Op: "Get", URL: "http://h", Err: errors.New("http2: client connection lost")}, objstore.ErrTransient},
		{"certificate", &url.Error{Op: "Get", URL: "https://h", Err: &tls.CertificateVerificationError{Err: errors.New("unknown authority")}}, nil},
		{"short answer", fmt.Errorf("decode: %w", &json.SyntaxError{}), objstore.ErrTransient},
		{"cut", io.ErrUnexpectedEOF, objstore.ErrTransient},
		{"piece too slow", context.DeadlineExceeded, objstore.ErrTransient},
		{"marked below", fmt.Errorf("x: %w", objstore.Transient(errors.New("y"))), objstore.ErrTransient},
		{"checksum", errors.New("storage: bad CRC"), nil},
	} {
		got := classify(c.err)
		for _, kind := range []error{fs.ErrNotExist, fs.ErrExist, fs.ErrPermission, objstore.ErrTransient} {
			if errors.Is(got, kind) != (kind == c.want) {
				t.Errorf("%s: %v is %v: %t", c.name, got, kind, errors.Is(got, kind))
			}
		}
	}
}

// TestMissingAsGoogleSays: the texts of the service are understood, and save a
// request.
func TestMissingAsGoogleSays(t *testing.T) {
	t.Parallel()
	const object = "No such object: b/p/a.ltx"
	for _, c := range []struct {
		name, text string
		exists     bool // the bucket
		requests   int
	}{
		{"no object", object, true, 1},
		{"no bucket", "The specified bucket does not exist.", false, 2},
		{"no bucket, other text", "Not Found", false, 2},
		{"no object, other text", "Not Found", true, 2},
	} {
		for verb, call := range map[string]func(*Store) error{
			"stat":   func(s *Store) error { _, err := s.Stat(t.Context(), "a.ltx"); return err },
			"get":    func(s *Store) error { _, err := s.Get(t.Context(), "a.ltx", 0, -1); return err },
			"delete": func(s *Store) error { return s.Delete(t.Context(), "a.ltx") },
		} {
			requests := 0
			err := call(open(t, Config{Bucket: "b", Prefix: "p", HTTPClient: &http.Client{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
				requests++
				if c.exists && strings.HasSuffix(req.URL.Path, "/o") {
					return answer(req, http.StatusOK, `{}`), nil
				}
				text := c.text
				if req.URL.Query().Get("alt") == "json" {
					text = fmt.Sprintf(`{"error":{"code":404,"message":%q,"errors":[{"reason":"notFound","message":%[1]q}]}}`, c.text)
				}
				return answer(req, http.StatusNotFound, text), nil
			})}}))
			if requests != c.requests {
				t.Errorf("%s, %s: %d requests, want %d", c.name, verb, requests, c.requests)
			}
			switch {
			case !c.exists && (err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), `bucket "b"`)):
				t.Errorf("%s, %s: %v, want an error that names the bucket", c.name, verb, err)
			case c.exists && verb == "delete" && err != nil, c.exists && verb != "delete" && !errors.Is(err, fs.ErrNotExist):
				t.Errorf("%s, %s: %v", c.name, verb, err)
			}
		}
	}
}
