package natsobj

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/ltxstream/ltxstream/objstore"
)

// DefaultTimeout is how long one request waits for its answer.
const DefaultTimeout = 10 * time.Second

// Config of a [Store]. JS and Bucket are required; zero values of the rest mean
// the defaults.
type Config struct {
	// JS is used and never closed. Its connection should not keep what it
	// cannot send (nats.ReconnectBufSize(-1)): it would be delivered after the
	// Put that sent it had failed.
	JS     jetstream.JetStream
	Bucket string // of the object store; its stream is OBJ_<Bucket>
	Prefix string // of all keys, without slashes at its ends; "": none

	// Create lets Put create the bucket where it is missing: on files, without
	// compression and limits. Until then a listing has nothing. Without it a
	// missing bucket is an error.
	Create   bool
	Replicas int // of a bucket that is created; default 1

	Timeout time.Duration // of one request; default DefaultTimeout
	Logger  *slog.Logger  // default slog.Default()
}

// ParseURL reads nats://bucket/prefix?replicas=3&create=true. The connection is
// not part of it: set Config.JS.
func ParseURL(u *url.URL) (Config, error) {
	cfg := Config{Bucket: u.Host, Prefix: strings.Trim(u.Path, "/")}
	var errs []error
	if u.Scheme != "nats" {
		errs = append(errs, fmt.Errorf("scheme %q, want nats", u.Scheme))
	}
	if u.User != nil || u.Port() != "" {
		errs = append(errs, errors.New("the host is the name of the bucket, without user and port: server and credentials belong to the NATS connection (--server, --context, --creds)"))
		cfg.Bucket = u.Hostname()
	}
	if u.Fragment != "" {
		errs = append(errs, fmt.Errorf("fragment %q: there is no such part", u.Fragment))
	}
	query, err := url.ParseQuery(u.RawQuery)
	errs = append(errs, err)
	for name, values := range query {
		value := values[len(values)-1]
		switch name {
		case "replicas":
			if cfg.Replicas, err = strconv.Atoi(value); err != nil || cfg.Replicas < 1 {
				errs = append(errs, fmt.Errorf("replicas=%s: want a number from 1 to 5", value))
				cfg.Replicas = 0
			}
		case "create":
			if cfg.Create, err = strconv.ParseBool(value); err != nil {
				errs = append(errs, fmt.Errorf("create=%s: want true or false", value))
			}
		default:
			errs = append(errs, fmt.Errorf("unknown parameter %q: there are replicas and create", name))
		}
	}
	errs = append(errs, cfg.check())
	if err := errors.Join(errs...); err != nil {
		return Config{}, fmt.Errorf("archive URL nats://%s%s: %w", u.Host, u.Path, err)
	}
	return cfg, nil
}

var bucketName = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// check returns the faults of all that a URL can say.
func (c Config) check() error {
	var errs []error
	if !bucketName.MatchString(c.Bucket) {
		errs = append(errs, fmt.Errorf("bucket %q: want a name of letters, digits, _ and -", c.Bucket))
	}
	if c.Prefix != "" {
		if err := objstore.CheckKey(c.Prefix); err != nil {
			errs = append(errs, fmt.Errorf("prefix: %w", err))
		}
	}
	if c.Replicas < 0 || c.Replicas > 5 {
		errs = append(errs, fmt.Errorf("%d replicas: want 1 to 5", c.Replicas))
	}
	return errors.Join(errs...)
}

// Store is one bucket, or what lies under a prefix in it. It is safe for
// concurrent use.
type Store struct {
	cfg    Config
	nc     *nats.Conn
	api    string // prefix of the subjects of the JetStream API
	stream string // OBJ_<bucket>
	prefix string // of the names in the bucket: "" or with a slash at its end

	chunk     int // bytes in one chunk
	pageBytes int // of subjects in one request

	seen    highest // sequence of the stream that we know of
	tail    tail
	naming  naming
	offsets offsets
}

var _ objstore.Store = (*Store)(nil)

// New checks cfg and returns a store. It sends nothing.
func New(_ context.Context, cfg Config) (*Store, error) {
	err := cfg.check()
	if cfg.JS == nil {
		err = errors.Join(err, errors.New("no JetStream"))
	}
	if err != nil {
		return nil, fmt.Errorf("open NATS object store: %w", err)
	}
	if cfg.Replicas == 0 {
		cfg.Replicas = 1
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	s := &Store{cfg: cfg, nc: cfg.JS.Conn(), api: apiPrefix(cfg.JS.Options()), stream: "OBJ_" + cfg.Bucket, chunk: chunkSize, pageBytes: maxPageBytes}
	if cfg.Prefix != "" {
		s.prefix = cfg.Prefix + "/"
	}
	if limit := int(s.nc.MaxPayload()) - chunkHeaders; limit > 0 { // 0: not connected yet
		s.chunk, s.pageBytes = min(s.chunk, limit), min(s.pageBytes, limit)
	}
	s.tail.init()
	return s, nil
}

func apiPrefix(o jetstream.JetStreamOptions) string {
	switch {
	case o.APIPrefix != "":
		return strings.TrimSuffix(o.APIPrefix, ".") + "."
	case o.Domain != "":
		return "$JS." + o.Domain + ".API."
	}
	return jetstream.DefaultAPIPrefix
}

// Close does nothing: the connection belongs to the caller.
func (s *Store) Close() error { return nil }

// String returns nats://bucket/prefix.
func (s *Store) String() string {
	return strings.TrimSuffix("nats://"+s.cfg.Bucket+"/"+s.cfg.Prefix, "/")
}

// highest is a number that grows until it is forgotten.
type highest struct{ n atomic.Uint64 }

func (h *highest) raise(n uint64) {
	for {
		old := h.n.Load()
		if n <= old || h.n.CompareAndSwap(old, n) {
			return
		}
	}
}

func (h *highest) get() uint64 { return h.n.Load() }
func (h *highest) forget()     { h.n.Store(0) }
