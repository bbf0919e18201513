package mem_test

import (
	"testing"

	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/objstore/mem"
	"github.com/ltxstream/ltxstream/objstore/objstoretest"
)

func TestSuite(t *testing.T) {
	stores := map[string]objstore.Store{}
	objstoretest.Run(t, objstoretest.Backend{
		Open: func(_ testing.TB, prefix string) objstore.Store {
			if stores[prefix] == nil {
				stores[prefix] = mem.New()
			}
			return stores[prefix]
		},
		ListTimestamps: true,
	})
}
