package gcs

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func mustParse(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestParseURL(t *testing.T) {
	t.Setenv(emulatorEnv, "")
	for in, want := range map[string]Config{
		"gs://archive":               {Bucket: "archive"},
		"gs://archive/":              {Bucket: "archive"},
		"gs://my_bucket.example/a/b": {Bucket: "my_bucket.example", Prefix: "a/b"},
		"gs://archive/a/b/":          {Bucket: "archive", Prefix: "a/b"},
		"gs://archive/a?endpoint=http%3A%2F%2F127.0.0.1%3A4443": {Bucket: "archive", Prefix: "a", Endpoint: "http://127.0.0.1:4443"},
		"gs://archive?endpoint=https://storage-x.p.example":     {Bucket: "archive", Endpoint: "https://storage-x.p.example"},
	} {
		cfg, err := ParseURL(mustParse(t, in))
		if err != nil || cfg != want {
			t.Errorf("%s: %+v, %v, want %+v", in, cfg, err, want)
			continue
		}
		cfg.HTTPClient = http.DefaultClient
		if again, err := ParseURL(mustParse(t, open(t, cfg).String())); err != nil || again != want {
			t.Errorf("%s: String gives %+v, %v", in, again, err)
		}
	}
}

func TestParseURLFaults(t *testing.T) {
	t.Setenv(emulatorEnv, "")
	for in, want := range map[string][]string{
		"s3://archive/a":                   {"s3"},
		"gs:///a":                          {"bucket"},
		"gs://Archive/a":                   {"Archive"},
		"gs://archive:99/a":                {"archive:99"},
		"gs://archive/a//b":                {"prefix"},
		"gs://archive/a%20b":               {"prefix"},
		"gs://archive/a#b":                 {"fragment"},
		"gs://archive/a?region=x":          {`"region"`, "endpoint"},
		"gs://archive/a?a=%zz":             {"parameters"},
		"gs://archive?endpoint=host":       {"endpoint", "http"},
		"gs://archive?endpoint=http://h/x": {"endpoint", "http://h"},
		"gs://archive?endpoint=http://h&endpoint=http://h":       {"2 times"},
		"gs://archive/" + strings.Repeat("p", 324):               {"324"},
		"gs://Archive/a//b?region=x&endpoint=ftp://h":            {"Archive", "prefix", "region", "endpoint"},
		"gs://me:s3cret@archive/a?key=s3cret":                    {"credentials", `"key"`},
		"gs://archive/a?endpoint=https%3A%2F%2Fu%3As3cret%40h":   {"https://h"},
		"gs://archive/a?endpoint=https%3A%2F%2Fu%3As3cret%40%7F": {"endpoint"},
	} {
		_, err := ParseURL(mustParse(t, in))
		if err == nil {
			t.Errorf("%s is taken", in)
			continue
		}
		if strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: the error tells a secret: %v", in, err)
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q does not say %q", in, err, w)
			}
		}
	}
}

func TestNewFaults(t *testing.T) {
	t.Parallel()
	_, err := New(t.Context(), Config{Bucket: "B", Prefix: "/p", ChunkSize: 1000, Endpoint: "h", HTTPClient: http.DefaultClient})
	for _, want := range []string{"bucket", "prefix", "chunk size 1000", "endpoint"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: does not say %q", err, want)
		}
	}
	for _, size := range []int{-chunkUnit, maxChunkSize + chunkUnit, chunkUnit + 1} {
		if _, err := New(t.Context(), Config{Bucket: "b", ChunkSize: size, HTTPClient: http.DefaultClient}); err == nil {
			t.Errorf("chunk size %d is taken", size)
		}
	}
}

// TestTarget: credentials go to Google and to https alone.
func TestTarget(t *testing.T) {
	for _, c := range []struct {
		name, endpoint, emulator string
		client                   *http.Client
		want                     target
	}{
		{"google", "", "", nil, target{"", false}},
		{"client of its own", "", "", http.DefaultClient, target{"", true}},
		{"private", "https://h", "", nil, target{"https://h/storage/v1/", false}},
		{"with the path of the API", "https://h/storage/v1", "", nil, target{"https://h/storage/v1/", false}},
		{"plain", "http://h:1/", "", nil, target{"http://h:1/storage/v1/", true}},
		{"emulator", "", "h:1", nil, target{"http://h:1/storage/v1/", true}},
		{"emulator with https", "", "https://h:1", nil, target{"https://h:1/storage/v1/", true}},
		{"endpoint before emulator", "https://h", "e:1", nil, target{"https://h/storage/v1/", false}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv(emulatorEnv, c.emulator)
			got, err := Config{Bucket: "b", Endpoint: c.endpoint, HTTPClient: c.client}.target()
			if err != nil || got != c.want {
				t.Errorf("%+v, %v, want %+v", got, err, c.want)
			}
		})
	}
}
