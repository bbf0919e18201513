package s3

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/ltxstream/ltxstream/objstore"
)

const (
	// DefaultPartSize of [Config]. With it an upload of unknown length may have
	// 156 GiB.
	DefaultPartSize = 16 << 20
	// DefaultRegion is used with an endpoint, whose server mostly does not care.
	DefaultRegion = "us-east-1"

	minPartSize = 5 << 20 // what S3 demands of every part but the last
	maxPartSize = 5 << 30
	maxParts    = 10_000

	maxKeyLen    = 1024 // bytes, of S3
	maxPrefixLen = maxKeyLen - 700 - len("/")
)

// Config of a [Store]. Zero values mean the defaults.
type Config struct {
	Bucket string // required
	Prefix string // of all keys, without slashes at its ends; "": none

	Endpoint string // URL of a server that is not AWS's; "": as AWS is configured
	Region   string // "": as AWS is configured; else, with an endpoint, DefaultRegion
	// PathStyle puts the bucket into the path of requests instead of the host
	// name; nil: yes with an endpoint, no without.
	PathStyle *bool

	// PartSize is the size of the pieces of a streamed Put, 5 MiB to 5 GiB, 0
	// for DefaultPartSize. One upload holds up to four of them in memory. A body
	// that is an io.Seeker gets larger parts where S3's limit of 10,000 parts
	// demands it; one of unknown length fails there.
	PartSize int64

	// AWS replaces what the AWS SDK finds in the environment and its files
	// (credentials, region); nil: that.
	AWS *aws.Config
	// Transport does the requests; nil: one of the store's own.
	Transport http.RoundTripper
}

// ParseURL reads s3://BUCKET[/PREFIX][?endpoint=URL&region=R&path-style=true|false&part-size=N|NMiB].
// All faults are reported at once.
func ParseURL(u *url.URL) (Config, error) {
	cfg := Config{Bucket: u.Host, Prefix: strings.Trim(u.Path, "/")}
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if u.Scheme != "s3" {
		fault("scheme %q: want s3://BUCKET/PREFIX", u.Scheme)
	}
	if u.User != nil {
		fault("credentials do not belong in the URL: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use an AWS profile or role")
	}
	if u.Fragment != "" {
		fault("fragment %q: want none", u.Fragment)
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		fault("parameters %q: %w", u.RawQuery, err)
	}
	for name, values := range query {
		if len(values) > 1 {
			fault("parameter %s is given %d times", name, len(values))
		}
		value := values[0]
		switch name {
		case "endpoint":
			cfg.Endpoint = value
		case "region":
			cfg.Region = value
		case "path-style":
			if value != "true" && value != "false" {
				fault("path-style=%s: want true or false", value)
			}
			cfg.PathStyle = new(value == "true")
		case "part-size":
			if cfg.PartSize, err = parseSize(value); err != nil {
				fault("part-size=%s: want a number of bytes or of MiB, as in 16MiB", value)
			}
		default:
			fault("unknown parameter %q: want endpoint, region, path-style or part-size", name)
		}
	}
	faults = append(faults, cfg.faults()...)
	if len(faults) > 0 {
		return Config{}, fmt.Errorf("storage URL %s: %w", u.Redacted(), errors.Join(faults...))
	}
	return cfg, nil
}

func parseSize(s string) (int64, error) {
	number, mib := strings.CutSuffix(s, "MiB")
	n, err := strconv.ParseInt(number, 10, 43)
	if mib {
		n <<= 20
	}
	return n, err
}

// faults returns everything that is wrong with cfg.
func (cfg Config) faults() (faults []error) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if cfg.Bucket == "" || strings.ContainsAny(cfg.Bucket, "/:?# ") {
		fault("bucket %q: want the name of a bucket", cfg.Bucket)
	}
	if cfg.Prefix != "" {
		if err := objstore.CheckKey(cfg.Prefix); err != nil {
			fault("prefix: %w", err)
		}
		if len(cfg.Prefix) > maxPrefixLen {
			fault("prefix of %d characters, want at most %d", len(cfg.Prefix), maxPrefixLen)
		}
	}
	if cfg.Endpoint != "" {
		e, err := url.Parse(cfg.Endpoint)
		if err != nil || e.Scheme != "http" && e.Scheme != "https" || e.Host == "" || e.User != nil || e.RawQuery != "" {
			fault("endpoint %q: want the URL of a server, as in https://s3.example.com", cfg.Endpoint)
		}
	}
	if cfg.PartSize != 0 && (cfg.PartSize < minPartSize || cfg.PartSize > maxPartSize) {
		fault("part size of %d bytes: want 5 MiB to 5 GiB", cfg.PartSize)
	}
	return faults
}

// url is cfg for people, as ParseURL reads it.
func (cfg Config) url() string {
	query := url.Values{}
	if cfg.Endpoint != "" {
		query.Set("endpoint", cfg.Endpoint)
	}
	if cfg.Region != "" {
		query.Set("region", cfg.Region)
	}
	if cfg.PathStyle != nil {
		query.Set("path-style", strconv.FormatBool(*cfg.PathStyle))
	}
	if cfg.PartSize != 0 && cfg.PartSize != DefaultPartSize {
		query.Set("part-size", strconv.FormatInt(cfg.PartSize, 10))
	}
	u := url.URL{Scheme: "s3", Host: cfg.Bucket, Path: cfg.Prefix, RawQuery: query.Encode()}
	return u.String()
}
