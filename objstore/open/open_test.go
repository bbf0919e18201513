package open

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/superfly/ltx"
	"go.uber.org/goleak"

	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/objstore/levels"
)

func TestMain(m *testing.M) {
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "eu-north-1", "AWS_EC2_METADATA_DISABLED": "true",
		"AZURE_STORAGE_KEY": "c2VjcmV0", "STORAGE_EMULATOR_HOST": "127.0.0.1:1", "LTX_SFTP_PASSWORD": "secret",
	} {
		os.Setenv(name, value)
	}
	for _, name := range []string{"AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_SAS_TOKEN", "AWS_PROFILE"} {
		os.Unsetenv(name)
	}
	goleak.VerifyTestMain(m)
}

const hostKey = "ssh-ed25519+AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"

// TestSchemes: each scheme opens its backend with Litestream's layout there, and
// says its URL without credentials. No server is asked.
func TestSchemes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	known := filepath.Join(dir, "known_hosts")
	if err := os.WriteFile(known, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	decimal, hex := "app/ltx/1/", "app/0001/"
	for raw, want := range map[string]struct{ folder, text string }{
		dir:                                      {decimal, "file://" + dir},
		"file://" + dir:                          {decimal, "file://" + dir},
		"file://" + dir + "?create=true":         {decimal, "file://" + dir},
		"gs://bucket/a/b":                        {decimal, "gs://bucket/a/b"},
		"s3://bucket/a/b":                        {hex, "s3://bucket/a/b"},
		"s3://bucket?endpoint=http://h:1":        {hex, "s3://bucket"},
		"abs://account@container/a":              {decimal, "abs://account@container/a"},
		"sftp://u@host/a?host-key=" + hostKey:    {decimal, "sftp://u@host/a"},
		"sftp://u@host/~/a?known-hosts=" + known: {decimal, "sftp://u@host/~/a"},
	} {
		t.Run(raw, func(t *testing.T) {
			a, err := Archive(t.Context(), raw, Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer a.Store().Close()
			if key := a.Key("app", levels.File{Level: 1, Min: 1, Max: 1}); !strings.HasPrefix(key, want.folder) {
				t.Errorf("key %s, want %s", key, want.folder)
			}
			if !strings.HasPrefix(a.String(), want.text) || strings.Contains(a.String(), "secret") {
				t.Errorf("says %s, want %s", a, want.text)
			}
		})
	}
}

// TestRefused: what a URL is wrong in is said, and is ErrURL.
func TestRefused(t *testing.T) {
	t.Parallel()
	for raw, text := range map[string]string{
		"":                              "want file:///dir",
		"-":                             "want file:///dir",
		"--to":                          "want file:///dir",
		"ftp://host/x":                  `"ftp"`,
		"://x":                          "scheme",
		"S3://bucket/%zz":               "%zz",
		"file://host/x":                 "third slash",
		"file://":                       "no path",
		"file:///x?crate=true":          `"crate"`,
		"gs://":                         "bucket",
		"gs://Bucket/x":                 "bucket",
		"gs://bucket/a b":               "prefix",
		"gs://bucket/x?project=p":       `"project"`,
		"gs://u:secret@bucket/x":        "credentials",
		"s3://":                         "bucket",
		"s3://bucket/x?regoin=eu":       "regoin",
		"s3://bucket/x?part-size=1":     "part size",
		"s3://bucket/x?endpoint=host":   "endpoint",
		"s3://id:secret@bucket/x":       "credentials",
		"abs://account@/x":              "no container",
		"abs://account@container/a b":   "prefix",
		"abs://account:secret@c/x":      "AZURE_STORAGE_KEY",
		"abs://account@c/x?sas=secret":  "sas",
		"sftp://host":                   "no path",
		"sftp:///x":                     "no host",
		"sftp://u:secret@host/x":        "LTX_SFTP_PASSWORD",
		"sftp://u@host/x?port=22":       `"port"`,
		"nats://bucket/x?replicas=many": "replicas=many",
		"nats://a.b/x":                  "bucket",
		"nats://u:secret@bucket/x":      "without user",
		"nats://bucket/x?region=eu":     `"region"`,
	} {
		t.Run(raw, func(t *testing.T) {
			a, err := Archive(t.Context(), raw, Options{NATS: func(context.Context) (jetstream.JetStream, error) {
				t.Error("it connects before the URL was read")
				return nil, errors.New("no NATS here")
			}})
			if !errors.Is(err, ErrURL) || a != nil {
				t.Fatalf("%v, want ErrURL", err)
			}
			if !strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "secret") {
				t.Errorf("it says %q, want %q and no secret", err, text)
			}
		})
	}
}

// TestNATS: the connection comes from the caller.
func TestNATS(t *testing.T) {
	t.Parallel()
	if _, err := Archive(t.Context(), "nats://bucket/x", Options{}); !errors.Is(err, ErrURL) || !strings.Contains(err.Error(), "NATS connection") {
		t.Errorf("without one: %v", err)
	}
	away := errors.New("nothing answers")
	_, err := Archive(t.Context(), "nats://bucket/x", Options{NATS: func(context.Context) (jetstream.JetStream, error) { return nil, away }})
	if !errors.Is(err, away) || errors.Is(err, ErrURL) {
		t.Errorf("it cannot be made: %v", err)
	}
}

// TestDirectory: one that is written is made with its first file; one that is
// read must be there.
func TestDirectory(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a", "b")
	read, err := Archive(t.Context(), path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range read.Databases(t.Context()) {
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a missing directory: %v", err)
		}
	}
	write, err := Archive(t.Context(), "file://"+path, Options{Write: true, NATS: func(context.Context) (jetstream.JetStream, error) { return nil, errors.New("asked for NATS") }})
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range write.Databases(t.Context()) {
		t.Errorf("an empty archive: %v", err)
	}
	f := levels.File{Level: 1, Min: 1, Max: ltx.TXID(3), Timestamp: time.UnixMilli(1_700_000_000_000).UTC()}
	if _, err := write.Put(t.Context(), "app", f, strings.NewReader("x"), nil); err != nil {
		t.Fatal(err)
	}
	for name, err := range read.Databases(t.Context()) {
		if name != "app" || err != nil {
			t.Errorf("%q, %v", name, err)
		}
	}
}

// TestTriesAgain: calls on what was opened are tried again.
func TestTriesAgain(t *testing.T) {
	t.Parallel()
	var tried []string
	a, err := Archive(t.Context(), "gs://bucket/x?endpoint=http://127.0.0.1:1", Options{Retry: objstore.RetryConfig{
		Tries: 3, FirstPause: time.Millisecond, OnRetry: func(op string, err error) { tried = append(tried, fmt.Sprint(op)) },
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Store().Close()
	if _, err := a.Store().Stat(t.Context(), "key"); err == nil || len(tried) != 2 {
		t.Errorf("%v after %v", err, tried)
	}
}
