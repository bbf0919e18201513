package azure

import (
	"net/url"
	"strings"
	"testing"
)

func openURL(t *testing.T, text string) *Store {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := ParseURL(u)
	if err != nil {
		t.Fatal(err)
	}
	return openConfig(t, cfg)
}

func TestParseURL(t *testing.T) {
	for text, want := range map[string]Config{
		"abs://acc@con":    {Account: "acc", Container: "con"},
		"abs://con/a/b":    {Container: "con", Prefix: "a/b"},
		"abs://acc@con/a/": {Account: "acc", Container: "con", Prefix: "a"},
		"abs://acc@con?block-size=16MiB&concurrency=2":          {Account: "acc", Container: "con", BlockSize: 16 << 20, Concurrency: 2},
		"abs://acc@con?block-size=128KiB":                       {Account: "acc", Container: "con", BlockSize: 128 << 10},
		"abs://acc@con?block-size=100000&endpoint=http://h:1/a": {Account: "acc", Container: "con", BlockSize: 100000, Endpoint: "http://h:1/a"},
	} {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ParseURL(u); err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"s3://acc@con":                               `"s3"`,
		"abs://acc:key@con":                          "AZURE_STORAGE_KEY",
		"abs://acc@con?sas=x":                        "parameter sas: unknown",
		"abs://acc@con?block-size=lots":              "parameter block-size",
		"abs://acc@con?block-size=-1":                "parameter block-size",
		"abs://acc@con?block-size=99999999999999MiB": "parameter block-size",
		"abs://acc@con?concurrency=0":                "parameter concurrency",
		"abs://acc@con?concurrency=0&block-size=x":   "block-size",
		"abs://acc@con?%zz":                          "parameters",
		"abs://acc@con#part":                         "abs://ACCOUNT@CONTAINER/PREFIX",
	} {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseURL(u); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want something of %s", text, err, want)
		}
	}
}

const aKey = "c2VjcmV0IGtleQ=="

func TestBadConfig(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  Config
		want string // each word of the error
	}{
		"nothing":          {Config{}, "account container"},
		"account":          {Config{Account: "Big", Container: "con", Key: aKey}, `"Big"`},
		"container":        {Config{Account: "acc", Container: "My_C", Key: aKey}, `"My_C"`},
		"port":             {Config{Account: "acc", Container: "con:80", Key: aKey}, `"con:80"`},
		"prefix":           {Config{Account: "acc", Container: "con", Prefix: "a//b", Key: aKey}, "prefix"},
		"long prefix":      {Config{Account: "acc", Container: "con", Prefix: strings.Repeat("a", 301), Key: aKey}, "301"},
		"key":              {Config{Account: "acc", Container: "con", Key: "no base64"}, "base64"},
		"sas":              {Config{Account: "acc", Container: "con", SASToken: "sv=1&sp=r"}, "sig="},
		"two":              {Config{Account: "acc", Container: "con", Key: aKey, SASToken: "sig=x"}, "more than one"},
		"endpoint":         {Config{Account: "acc", Container: "con", Key: aKey, Endpoint: "127.0.0.1:10000"}, "endpoint"},
		"endpoint's query": {Config{Account: "acc", Container: "con", Key: aKey, Endpoint: "https://h/?sig=secret"}, "endpoint"},
		"token over http":  {Config{Account: "acc", Container: "con", Endpoint: "http://h"}, "AZURE_STORAGE_KEY"},
		"block size":       {Config{Account: "acc", Container: "con", Key: aKey, BlockSize: 5, Concurrency: 65}, "block 65"},
		"string":           {Config{Container: "con", ConnectionString: "AccountName=acc"}, "AccountKey"},
		"string's account": {Config{Account: "other", Container: "con", ConnectionString: "AccountName=acc;AccountKey=" + aKey}, "acc other AZURE_STORAGE_CONNECTION_STRING"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(t.Context(), c.cfg)
			if err == nil {
				t.Fatal("no error")
			}
			for word := range strings.FieldsSeq(c.want) {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("%q does not say %s", err, word)
				}
			}
			for _, secret := range []string{aKey, "secret", "no base64"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("%q tells a secret", err)
				}
			}
		})
	}
}

func TestCredentialsFromEnvironment(t *testing.T) {
	for name, c := range map[string]struct {
		env  map[string]string
		cfg  Config
		want Config
	}{
		"key":            {map[string]string{"AZURE_STORAGE_KEY": "k", "LITESTREAM_AZURE_ACCOUNT_KEY": "l", "AZURE_STORAGE_SAS_TOKEN": "sig=s"}, Config{}, Config{Account: "acc", Key: "k"}},
		"litestream":     {map[string]string{"LITESTREAM_AZURE_ACCOUNT_KEY": "l"}, Config{}, Config{Account: "acc", Key: "l"}},
		"sas":            {map[string]string{"AZURE_STORAGE_SAS_TOKEN": "?sig=s"}, Config{}, Config{Account: "acc", SASToken: "sig=s"}},
		"litestream sas": {map[string]string{"LITESTREAM_AZURE_SAS_TOKEN": "sig=s"}, Config{}, Config{Account: "acc", SASToken: "sig=s"}},
		"string":         {map[string]string{"AZURE_STORAGE_CONNECTION_STRING": "AccountName=str;AccountKey=k;EndpointSuffix=core.example", "AZURE_STORAGE_KEY": "x"}, Config{}, Config{Account: "str", Key: "k", Endpoint: "https://str.blob.core.example"}},
		"sas string":     {map[string]string{"AZURE_STORAGE_CONNECTION_STRING": "BlobEndpoint=https://h/;SharedAccessSignature=sig=s"}, Config{}, Config{Account: "acc", SASToken: "sig=s", Endpoint: "https://h"}},
		"config first":   {map[string]string{"AZURE_STORAGE_KEY": "k", "AZURE_STORAGE_CONNECTION_STRING": "x"}, Config{Account: "mine", SASToken: "sig=s"}, Config{Account: "mine", SASToken: "sig=s"}},
		"none":           {nil, Config{}, Config{Account: "acc"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("AZURE_STORAGE_ACCOUNT", "acc")
			for name, value := range c.env {
				t.Setenv(name, value)
			}
			c.cfg.Container, c.want.Container = "con", "con"
			c.want.BlockSize, c.want.Concurrency = DefaultBlockSize, DefaultConcurrency
			if c.want.Endpoint == "" {
				c.want.Endpoint = "https://" + c.want.Account + ".blob.core.windows.net"
			}
			if got, err := c.cfg.complete(); err != nil || got != c.want {
				t.Errorf("%+v, %v\nwant %+v", got, err, c.want)
			}
		})
	}
}

func TestString(t *testing.T) {
	t.Setenv("AZURE_STORAGE_KEY", aKey)
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Config{Account: "acc", Container: "con", Prefix: "a/b", Key: aKey}, "abs://acc@con/a/b"},
		{Config{Account: "acc", Container: "con", SASToken: "sig=secret", Endpoint: "http://h:1/acc"}, "abs://acc@con/?endpoint=http%3A%2F%2Fh%3A1%2Facc"},
		{Config{Account: "acc", Container: "con", Credential: failingCredential{}}, "abs://acc@con/"},
	} {
		s := openConfig(t, c.cfg)
		if s.String() != c.want {
			t.Errorf("%s, want %s", s, c.want)
		}
		if again := openURL(t, s.String()); again.String() != c.want {
			t.Errorf("%s read back is %s", s, again)
		}
	}
}
