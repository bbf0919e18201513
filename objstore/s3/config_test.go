package s3

import (
	"errors"
	"io/fs"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/ltxstream/ltxstream/objstore"
)

func TestParseURL(t *testing.T) {
	for in, want := range map[string]Config{
		"s3://b":               {Bucket: "b"},
		"s3://b/":              {Bucket: "b"},
		"s3://my.bucket/a/b/c": {Bucket: "my.bucket", Prefix: "a/b/c"},
		"s3://b/a/":            {Bucket: "b", Prefix: "a"},
		"s3://b/a?endpoint=https%3A%2F%2Fs3.example.com%3A9000&path-style=false&region=eu-central-1": {
			Bucket: "b", Prefix: "a", Endpoint: "https://s3.example.com:9000", Region: "eu-central-1", PathStyle: new(false)},
		"s3://b?path-style=true":     {Bucket: "b", PathStyle: new(true)},
		"s3://b?part-size=64MiB":     {Bucket: "b", PartSize: 64 << 20},
		"s3://b?part-size=5242880":   {Bucket: "b", PartSize: 5 << 20},
		"s3://b?endpoint=http://h:1": {Bucket: "b", Endpoint: "http://h:1"},
	} {
		got, err := ParseURL(parse(t, in))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v, want %+v", in, got, err, want)
		}
		if again, err := ParseURL(parse(t, got.url())); err != nil || !reflect.DeepEqual(again, want) {
			t.Errorf("%s as %s: %+v, %v", in, got.url(), again, err)
		}
	}
}

func parse(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// TestParseURLFaults: each names the thing, and all come at once.
func TestParseURLFaults(t *testing.T) {
	for in, names := range map[string][]string{
		"gs://b":                                 {"scheme", "gs"},
		"s3:///a":                                {"bucket"},
		"s3://b:80/a":                            {"bucket"},
		"s3://key:secret@b/a":                    {"AWS_ACCESS_KEY_ID"},
		"s3://b/a#x":                             {"fragment"},
		"s3://b/a//b":                            {"prefix"},
		"s3://b/" + strings.Repeat("x", 400):     {"prefix", "400"},
		"s3://b/a?regoin=x":                      {"regoin", "region"},
		"s3://b/a?region=x&region=y":             {"region", "2 times"},
		"s3://b/a?path-style=yes":                {"path-style", "true or false"},
		"s3://b/a?part-size=5GB":                 {"part-size", "MiB"},
		"s3://b/a?part-size=1MiB":                {"part size", "5 MiB"},
		"s3://b/a?part-size=9000000MiB":          {"part size", "5 GiB"},
		"s3://b/a?part-size=99999999999999999":   {"part-size"},
		"s3://b/a?endpoint=s3.example.com":       {"endpoint", "s3.example.com"},
		"s3://b/a?endpoint=http%3A%2F%2Fu:p@h":   {"endpoint"},
		"s3://b/a?region=%zz":                    {"parameters"},
		"s3://b/a?x=1&path-style=2&part-size=7x": {"x", "path-style", "part-size"},
	} {
		_, err := ParseURL(parse(t, in))
		if err == nil {
			t.Errorf("%s: no error", in)
			continue
		}
		for _, name := range names {
			if !strings.Contains(err.Error(), name) {
				t.Errorf("%s: %q does not say %q", in, err, name)
			}
		}
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %q tells the secret", in, err)
		}
	}
}

func TestNewFaults(t *testing.T) {
	noAWS(t)
	_, err := New(t.Context(), Config{Prefix: "/x", PartSize: 7, Endpoint: "x"})
	for _, name := range []string{"bucket", "prefix", "part size", "endpoint"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v does not name the %s", err, name)
		}
	}
	if _, err := New(t.Context(), Config{Bucket: "b"}); err == nil || !strings.Contains(err.Error(), "AWS_REGION") {
		t.Errorf("no region: %v", err)
	}
	t.Setenv("AWS_PROFILE", "nosuch")
	if _, err := New(t.Context(), Config{Bucket: "b"}); err == nil || !strings.Contains(err.Error(), "nosuch") {
		t.Errorf("unknown profile: %v", err)
	}
}

// noAWS hides the AWS configuration of whoever runs the test.
func noAWS(t *testing.T) {
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION",
		"AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE",
		"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_REQUEST_CHECKSUM_CALCULATION"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CONFIG_FILE", "/dev/null")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
}

// TestEnvironment: everything but the bucket may come from it.
func TestEnvironment(t *testing.T) {
	noAWS(t)
	server := start(t)
	t.Setenv("AWS_ENDPOINT_URL_S3", server.URL)
	t.Setenv("AWS_ACCESS_KEY_ID", server.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", server.SecretKey)
	s := open(t, Config{Bucket: bucket}) // with connections of its own, which Close must close
	defer s.Close()
	putString(t, s, "a/x.ltx", "hello")
	if b, err := objstore.ReadAll(t.Context(), s, "a/x.ltx"); err != nil || string(b) != "hello" {
		t.Fatalf("%q, %v", b, err)
	}
}

func TestNoCredentials(t *testing.T) {
	noAWS(t)
	requests := 0
	s := open(t, Config{Bucket: "b", Region: "us-east-1", Transport: roundTrip(func(*http.Request) (*http.Response, error) {
		requests++
		return nil, errors.New("no")
	})})
	_, err := s.Stat(t.Context(), "a/x.ltx")
	if !errors.Is(err, fs.ErrPermission) || errors.Is(err, objstore.ErrTransient) || !strings.Contains(err.Error(), "AWS_ACCESS_KEY_ID") || requests != 0 {
		t.Fatalf("%d requests, %v", requests, err)
	}
}

func TestWrongCredentials(t *testing.T) {
	server := start(t)
	for name, keys := range map[string][2]string{
		"unknown key":  {"nosuch", "nosuchsecret"},
		"wrong secret": {server.AccessKey, "nosuchsecret"},
	} {
		s := open(t, as(configOf(server), keys[0], keys[1]))
		defer s.Close()
		eachCall(t, s, func(call string, err error) {
			if !errors.Is(err, fs.ErrPermission) || errors.Is(err, objstore.ErrTransient) || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s, %s: %v, want fs.ErrPermission alone", name, call, err)
			}
		})
	}
}

// TestAddressing: where the bucket is in requests.
func TestAddressing(t *testing.T) {
	noAWS(t)
	for in, want := range map[string]string{
		"s3://bucket/p?region=eu-central-1":                                     "https://bucket.s3.eu-central-1.amazonaws.com/p/a/x.ltx",
		"s3://bucket/p?region=eu-central-1&path-style=true":                     "https://s3.eu-central-1.amazonaws.com/bucket/p/a/x.ltx",
		"s3://bucket?endpoint=http://s3.example.com:9000":                       "http://s3.example.com:9000/bucket/a/x.ltx",
		"s3://bucket?endpoint=https://s3.example.com/sub&path-style=false":      "https://bucket.s3.example.com/sub/a/x.ltx",
		"s3://bucket/p?endpoint=https://s3.example.com&region=x&part-size=9MiB": "https://s3.example.com/bucket/p/a/x.ltx",
	} {
		cfg, err := ParseURL(parse(t, in))
		if err != nil {
			t.Fatal(err)
		}
		var got string
		cfg.Transport = roundTrip(func(req *http.Request) (*http.Response, error) {
			req.URL.RawQuery = ""
			got = req.URL.String()
			return nil, errors.New("seen")
		})
		s := open(t, as(cfg, "key", "secret"))
		if _, err := s.Stat(t.Context(), "a/x.ltx"); err == nil || got != want {
			t.Errorf("%s: asked %s, want %s (%v)", in, got, want, err)
		}
		if strings.Contains(s.String(), "secret") || !strings.HasPrefix(s.String(), "s3://bucket") {
			t.Errorf("String is %s", s)
		}
	}
}
