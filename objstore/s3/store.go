package s3

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/logging"

	"github.com/ltxstream/ltxstream/objstore"
)

const (
	// metaTimestamp is the name Litestream gives it.
	metaTimestamp = "litestream-timestamp"
	// metaPrefix begins the names of PutOptions.Meta.
	metaPrefix = "ltx-"
	// timestampLayout is RFC 3339; what is read may have any number of decimals.
	timestampLayout = "2006-01-02T15:04:05.000Z"
)

// Store is an objstore.Store in one bucket. Make it with [New].
type Store struct {
	cfg    Config
	dir    string // before every key: "" or the prefix and "/"
	client *s3.Client
	close  func()
}

var _ objstore.Store = (*Store)(nil)

// New returns a store. It makes no request: whether the bucket is there and
// the credentials suffice shows with the first call.
func New(ctx context.Context, cfg Config) (*Store, error) {
	if faults := cfg.faults(); len(faults) > 0 {
		return nil, fmt.Errorf("open %s: %w", cfg.url(), errors.Join(faults...))
	}
	s := &Store{cfg: cfg}
	if cfg.Prefix != "" {
		s.dir = cfg.Prefix + "/"
	}
	if s.cfg.PartSize == 0 {
		s.cfg.PartSize = DefaultPartSize
	}
	var shared aws.Config
	if cfg.AWS != nil {
		shared = cfg.AWS.Copy()
	} else {
		var err error
		if shared, err = config.LoadDefaultConfig(ctx); err != nil {
			return nil, fmt.Errorf("open %s: AWS configuration: %w", cfg.url(), err)
		}
	}
	shared.Credentials = watched(shared.Credentials)
	s.client = s3.NewFromConfig(shared, s.options)
	if s.client.Options().Region == "" {
		return nil, fmt.Errorf("open %s: no region: add ?region= to the URL, or set AWS_REGION", cfg.url())
	}
	return s, nil
}

// options is the last word on how requests are made.
func (s *Store) options(o *s3.Options) {
	if s.cfg.Endpoint != "" {
		o.BaseEndpoint = &s.cfg.Endpoint
	}
	elsewhere := o.BaseEndpoint != nil // by AWS_ENDPOINT_URL, too
	if s.cfg.Region != "" {
		o.Region = s.cfg.Region
	}
	if o.Region == "" && elsewhere {
		o.Region = DefaultRegion
	}
	o.UsePathStyle = elsewhere
	if s.cfg.PathStyle != nil {
		o.UsePathStyle = *s.cfg.PathStyle
	}
	o.Retryer = aws.NopRetryer{} // objstore.Retry does that
	o.Logger = logging.Nop{}
	o.DisableLogOutputChecksumValidationSkipped = true
	if o.RequestChecksumCalculation == aws.RequestChecksumCalculationUnset { // what the AWS configuration has by itself
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenSupported
	}
	if o.ResponseChecksumValidation == aws.ResponseChecksumValidationUnset {
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenSupported
	}

	transport := s.cfg.Transport
	if transport == nil {
		transport = newTransport()
	}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse // an answer to explain: a request is signed for one host
	}}
	o.HTTPClient = client
	s.close = func() {}
	if s.cfg.Transport == nil {
		s.close = client.CloseIdleConnections
	}
}

// answerTimeout is how long a server may think about a request, the making of
// one object out of 10,000 parts among them.
const answerTimeout = 5 * time.Minute

func newTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = 32
	t.ResponseHeaderTimeout = answerTimeout
	t.DisableCompression = true // sizes and ranges are of the stored bytes
	return t
}

// Close closes the connections that the store keeps open.
func (s *Store) Close() error {
	s.close()
	return nil
}

// String is the URL without credentials.
func (s *Store) String() string { return s.cfg.url() }

func (s *Store) object(key string) *string { return new(s.dir + key) }

// what names a call and its object in errors.
func (s *Store) what(verb, key string) string {
	return verb + " s3://" + s.cfg.Bucket + "/" + s.dir + key
}

// Stat is one HEAD request. Where that says that something is missing, but not
// what, a GET request finds out.
func (s *Store) Stat(ctx context.Context, key string) (objstore.Info, error) {
	what := s.what("stat", key)
	if err := objstore.CheckKey(key); err != nil {
		return objstore.Info{}, fmt.Errorf("%s: %w", what, err)
	}
	out, err := s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.cfg.Bucket, Key: s.object(key)})
	if err != nil {
		return objstore.Info{}, explain(ctx, what, s.probe(ctx, key, err))
	}
	if out.ContentLength == nil {
		return objstore.Info{}, fmt.Errorf("%s: %w", what, objstore.Transient(errors.New("the answer has no length")))
	}
	info := objstore.Info{Key: key, Size: *out.ContentLength, Modified: modified(out.LastModified)}
	if err := readMeta(&info, out.Metadata); err != nil {
		return objstore.Info{}, fmt.Errorf("%s: %w", what, err)
	}
	return info, nil
}

// modified is what S3 says of an object, in whole seconds.
func modified(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

// probe returns the error of a GET request in place of the error of a HEAD
// request, whose answer has no body: a missing object, a missing bucket and an
// unknown access key are all 404 there, an expired token is 400.
func (s *Store) probe(ctx context.Context, key string, err error) error {
	if status := statusOf(err); status != http.StatusNotFound && status != http.StatusBadRequest {
		return err
	}
	out, gerr := s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &s.cfg.Bucket, Key: s.object(key), Range: new("bytes=0-0")})
	if gerr != nil {
		return gerr
	}
	_ = out.Body.Close()
	return objstore.Transient(fmt.Errorf("the object is there, but a HEAD request says: %w", err)) // it came in between
}

// writeMeta returns the user metadata of a Put.
func writeMeta(opts objstore.PutOptions) map[string]string {
	meta := map[string]string{metaTimestamp: opts.Timestamp.UTC().Format(timestampLayout)}
	for name, value := range opts.Meta {
		meta[metaPrefix+name] = value
	}
	return meta
}

// readMeta reads what writeMeta or Litestream wrote. Names come back in any
// case; what is not ours is left out.
func readMeta(info *objstore.Info, meta map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(meta)) {
		value, lower := meta[name], strings.ToLower(name)
		if lower == metaTimestamp {
			t, err := time.Parse(time.RFC3339Nano, value)
			if err != nil {
				return fmt.Errorf("metadata %s: %w", metaTimestamp, err)
			}
			info.Timestamp = t.UTC()
		} else if ours, ok := strings.CutPrefix(lower, metaPrefix); ok {
			if info.Meta == nil {
				info.Meta = map[string]string{}
			}
			info.Meta[ours] = value
		}
	}
	return nil
}
