package gcs

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/ltxstream/ltxstream/objstore"
)

const (
	scheme = "gs"

	// DefaultChunkSize is Config.ChunkSize where that is 0.
	DefaultChunkSize = 8 << 20

	chunkUnit    = 256 << 10 // uploads in pieces must be made of these
	maxChunkSize = 64 << 20
	maxName      = 1024 // bytes, of the object in the bucket
	maxKey       = 700  // of it, what objstore.CheckKey allows

	apiPath     = "/storage/v1/"
	emulatorEnv = "STORAGE_EMULATOR_HOST" // known to all of Google's clients
)

// Config says which objects a [Store] holds and how it reaches them.
type Config struct {
	Bucket string // required; it must exist
	Prefix string // of all objects, without slashes at its ends; may be empty

	// Endpoint is the base URL of another server than Google's public one, such
	// as "https://storage-mine.p.googleapis.com" or "http://127.0.0.1:4443".
	// Over plain http no credentials are looked up or sent. Empty: Google, or
	// the emulator that the environment names (see the package's comment).
	Endpoint string

	// HTTPClient makes the requests as they are, without credentials of ours.
	// nil: a client of the store's own with Application Default Credentials.
	// The store does not close it.
	HTTPClient *http.Client

	// ChunkSize is how many bytes a request of a Put carries at most, in
	// multiples of 256 KiB up to 64 MiB; a shorter object takes one request. A
	// Put holds two to four times as much memory. 0: DefaultChunkSize.
	ChunkSize int
}

// ParseURL reads gs://bucket/prefix?endpoint=URL.
func ParseURL(u *url.URL) (Config, error) {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if u.Scheme != scheme {
		fault("scheme %q: want gs://bucket/prefix", u.Scheme)
	}
	if u.User != nil {
		fault("user or password: credentials do not belong in the URL, set GOOGLE_APPLICATION_CREDENTIALS")
	}
	if u.Fragment != "" {
		fault("fragment %q: write # in a prefix as %%23", u.Fragment)
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		fault("parameters: %w", err)
	}
	for name, values := range query {
		if name != "endpoint" {
			fault("parameter %q is unknown: there is endpoint", name)
		} else if len(values) > 1 {
			fault("parameter endpoint is given %d times", len(values))
		}
	}
	cfg := Config{Bucket: u.Host, Prefix: strings.Trim(u.Path, "/"), Endpoint: query.Get("endpoint")}
	if _, err := cfg.check(); err != nil {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		bare := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path} // what is left out may be a secret
		return Config{}, fmt.Errorf("storage URL %s: %w", &bare, err)
	}
	return cfg, nil
}

// check returns cfg with its defaults, or all its faults.
func (cfg Config) check() (Config, error) {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if cfg.Bucket == "" || strings.ContainsFunc(cfg.Bucket, notInBucketName) {
		fault("bucket %q: want a name of lower-case letters, digits and - _ . as in gs://bucket/prefix", cfg.Bucket)
	}
	if cfg.Prefix != "" {
		if err := objstore.CheckKey(cfg.Prefix); err != nil {
			fault("prefix: %w", err)
		}
		if most := maxName - maxKey - len("/"); len(cfg.Prefix) > most {
			fault("prefix of %d characters, want at most %d", len(cfg.Prefix), most)
		}
	}
	if cfg.ChunkSize == 0 {
		cfg.ChunkSize = DefaultChunkSize
	}
	if cfg.ChunkSize < 0 || cfg.ChunkSize > maxChunkSize || cfg.ChunkSize%chunkUnit != 0 {
		fault("chunk size %d: want a multiple of %d up to %d", cfg.ChunkSize, chunkUnit, maxChunkSize)
	}
	if _, err := cfg.target(); err != nil {
		errs = append(errs, err)
	}
	return cfg, errors.Join(errs...)
}

func notInBucketName(c rune) bool {
	return (c < 'a' || c > 'z') && (c < '0' || c > '9') && !strings.ContainsRune("-_.", c)
}

// target is where requests go.
type target struct {
	endpoint  string // "": Google's public one
	anonymous bool   // without credentials
}

func (cfg Config) target() (target, error) {
	base, from := cfg.Endpoint, "endpoint"
	if base == "" {
		base, from = os.Getenv(emulatorEnv), emulatorEnv
		if base == "" {
			return target{anonymous: cfg.HTTPClient != nil}, nil
		}
		if !strings.Contains(base, "://") {
			base = "http://" + base
		}
	}
	u, err := url.Parse(base)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return target{}, fmt.Errorf("%s: want http:// or https:// and a host", from) // what it is may be a secret
	}
	path := strings.Trim(u.Path, "/")
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" || path != "" && path != strings.Trim(apiPath, "/") {
		return target{}, fmt.Errorf("%s: want nothing but %s://%s", from, u.Scheme, u.Host)
	}
	u.Path = apiPath
	return target{u.String(), cfg.HTTPClient != nil || from == emulatorEnv || u.Scheme == "http"}, nil
}
