package natsobj

import (
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/objstore/objstoretest"
	"github.com/ltxstream/ltxstream/testenv"
)

// requests counts what a connection sends.
func requests(nc *nats.Conn) func() int64 {
	return func() int64 { return int64(nc.Stats().OutMsgs) }
}

func suite(js, nobody jetstream.JetStream) objstoretest.Backend {
	return objstoretest.Backend{
		Open: func(t testing.TB, prefix string) objstore.Store { return open(t, js, under(prefix)) },
		Missing: func(t testing.TB) objstore.Store {
			return open(t, js, func(c *Config) { c.Bucket = "no-such" })
		},
		Denied:   func(t testing.TB) objstore.Store { return open(t, nobody) },
		Requests: requests(js.Conn()),
		Budget:   objstoretest.Budget{Open: 0, SmallPut: 2, Get: 2, Stat: 1, DeletePerBatch: 5, ListPerPage: 7},
		ListPage: pageNames, DeleteBatch: 1, ListTimestamps: true, PartSize: chunkSize,
	}
}

func TestSuite(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a server")
	}
	// A process of its own, so that the heap that the suite measures is ours.
	srv := testenv.NodeProcess(t, testenv.Users(
		testenv.User{Name: "admin", Password: "x"},
		testenv.User{Name: "nobody", Password: "x", Publish: []string{"nothing"}},
	))
	js := srv.JetStream(nats.UserInfo("admin", "x"))
	bucket(t, js, "archive", 1)
	objstoretest.Run(t, suite(js, srv.JetStream(nats.UserInfo("nobody", "x"))))
}
