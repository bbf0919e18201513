package gcs

import (
	"net/http"
	"testing"

	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/objstore/objstoretest"
	"github.com/ltxstream/ltxstream/testenv/storage"
)

const (
	testBucket = "archive"
	testChunk  = 2 << 20 // the fake server sums up an upload again with each chunk of it
	testPage   = 200     // and slows down with each object
)

func startServer(t *testing.T) *storage.GCS {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a storage server")
	}
	return storage.StartGCS(t, testBucket)
}

func open(t testing.TB, cfg Config) *Store {
	t.Helper()
	s, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// bearer sends a token with each request.
type bearer struct {
	base  http.RoundTripper
	token string
}

func (b bearer) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("Authorization", "Bearer "+b.token)
	return b.base.RoundTrip(req)
}

func TestSuite(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	transport := newTransport()
	t.Cleanup(transport.CloseIdleConnections)
	objstoretest.Run(t, objstoretest.Backend{
		Open: func(t testing.TB, prefix string) objstore.Store {
			s := open(t, Config{Bucket: testBucket, Prefix: prefix, Endpoint: server.URL, ChunkSize: testChunk})
			s.page = testPage
			return s
		},
		Missing: func(t testing.TB) objstore.Store {
			return open(t, Config{Bucket: "no-such-bucket", Endpoint: server.URL})
		},
		Denied: func(t testing.TB) objstore.Store {
			hc := &http.Client{Transport: bearer{transport, storage.GCSDenied}}
			return open(t, Config{Bucket: testBucket, Endpoint: server.URL, HTTPClient: hc})
		},
		Requests:       server.Requests,
		Budget:         objstoretest.Budget{SmallPut: 1, Get: 1, Stat: 1, DeletePerBatch: 1, ListPerPage: 1},
		ListPage:       testPage,
		DeleteBatch:    1,
		ListTimestamps: true,
		PartSize:       testChunk,
	})
}

func TestFaults(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	objstoretest.RunFaults(t, func(t testing.TB, rt http.RoundTripper, prefix string) objstore.Store {
		return open(t, Config{
			Bucket: testBucket, Prefix: prefix, Endpoint: server.URL,
			HTTPClient: &http.Client{Transport: rt},
		})
	})
}
