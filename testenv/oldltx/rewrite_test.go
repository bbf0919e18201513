package oldltx

import (
	"bytes"
	"os"
	"testing"

	"github.com/superfly/ltx"
)

// TestRewriteIsTheOldEncoder holds Rewrite against a file that superfly/ltx v0.5.1
// itself wrote: zeros, a page that does not compress, and one that does a little.
func TestRewriteIsTheOldEncoder(t *testing.T) {
	t.Parallel()
	want, err := os.ReadFile("testdata/v0.5.1.ltx")
	if err != nil {
		t.Fatal(err)
	}
	if got := Rewrite(t, want, nil); !bytes.Equal(got, want) {
		t.Errorf("%x, superfly/ltx v0.5.1 wrote %x", got, want)
	}
	mixed := Rewrite(t, want, func(pgno uint32) bool { return pgno == 5 })
	if err := ltx.NewDecoder(bytes.NewReader(mixed)).Verify(); err != nil {
		t.Error(err)
	}
	if len(mixed) >= len(want) {
		t.Errorf("%d bytes with LZ4 blocks, %d with frames", len(mixed), len(want))
	}
}
