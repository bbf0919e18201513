package s3

import (
	"net/http"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/objstore/objstoretest"
	"github.com/ltxstream/ltxstream/testenv/storage"
)

const bucket = "archive"

// start runs a server with the bucket.
func start(t testing.TB) *storage.VersityGW {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a server")
	}
	return storage.StartVersityGW(t, bucket)
}

// configOf is what root opens a store with.
func configOf(server *storage.VersityGW) Config {
	return Config{
		Bucket: bucket, Endpoint: server.URL, PartSize: minPartSize,
		AWS: &aws.Config{Credentials: credentials.NewStaticCredentialsProvider(server.AccessKey, server.SecretKey, "")},
	}
}

func as(cfg Config, access, secret string) Config {
	cfg.AWS = &aws.Config{Credentials: credentials.NewStaticCredentialsProvider(access, secret, "")}
	return cfg
}

func open(t testing.TB, cfg Config) *Store {
	t.Helper()
	s, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) {
	server := start(t)
	server.AddUser(t, "nobody", "nobodysecret")
	counted := objstoretest.NewFaults(nil)
	t.Cleanup(counted.CloseIdleConnections)
	cfg := configOf(server)
	cfg.Transport, cfg.PartSize = counted, suitePartSize
	objstoretest.Run(t, objstoretest.Backend{
		Open: func(t testing.TB, prefix string) objstore.Store {
			c := cfg
			c.Prefix = prefix
			return open(t, c)
		},
		Missing: func(t testing.TB) objstore.Store {
			c := cfg
			c.Bucket = "nowhere"
			return open(t, c)
		},
		Denied:   func(t testing.TB) objstore.Store { return open(t, as(cfg, "nobody", "nobodysecret")) },
		Requests: counted.Requests,
		Budget:   objstoretest.Budget{SmallPut: 1, Get: 1, Stat: 1, DeletePerBatch: 1, ListPerPage: 1},
		ListPage: 1000, DeleteBatch: deleteBatch, PartSize: suitePartSize,
	})
}

func TestFaults(t *testing.T) {
	server := start(t)
	objstoretest.RunFaults(t, func(t testing.TB, rt http.RoundTripper, prefix string) objstore.Store {
		cfg := configOf(server)
		cfg.Prefix, cfg.Transport = prefix, rt
		return open(t, cfg)
	})
}
