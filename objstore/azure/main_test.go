package azure

import (
	"os"
	"strings"
	"testing"

	"github.com/ltxstream/ltxstream/testenv"
)

// TestMain keeps the credentials of whoever runs the tests out of them.
func TestMain(m *testing.M) {
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); strings.HasPrefix(name, "AZURE_") || strings.HasPrefix(name, "LITESTREAM_") {
			os.Unsetenv(name)
		}
	}
	testenv.Main(m)
}
