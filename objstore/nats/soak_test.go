//go:build soak

package natsobj

import (
	"testing"

	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/objstore/objstoretest"
	"github.com/ltxstream/ltxstream/testenv"
)

// TestSuiteOnCluster is the whole suite on three replicas.
func TestSuiteOnCluster(t *testing.T) {
	js := testenv.JetStream(t, testenv.Connect(t, testenv.ClusterProcesses(t).URL()))
	bucket(t, js, "archive", 3)
	objstoretest.Run(t, objstoretest.Backend{
		Open:        func(t testing.TB, prefix string) objstore.Store { return open(t, js, under(prefix)) },
		DeleteBatch: 1, ListPage: pageNames, ListTimestamps: true, PartSize: chunkSize,
	})
}
