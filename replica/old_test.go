package replica

import (
	"errors"
	"fmt"
	"testing"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/testenv/oldltx"
)

// old is the file with some pages, nil: all of them, as superfly/ltx before v0.5.2
// wrote them.
func old(t testing.TB, f file, which func(pgno uint32) bool) file {
	t.Helper()
	f.data = oldltx.Rewrite(t, f.data, which)
	return f
}

func odd(pgno uint32) bool { return pgno%2 == 1 }

// TestApplyOldFiles: a base and transactions, small and of many pages, in the older
// form, in both forms, and in turns with the newer one.
func TestApplyOldFiles(t *testing.T) {
	t.Parallel()
	for _, size := range []uint32{512, 4096, 65536} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			rnd := seeded(t, uint64(size))
			p, path := newPrimary(t, size), replicaPath(t)
			r := open(t, Config{Path: path})
			apply(t, r, old(t, p.bank(), nil))
			for i := range 24 {
				f := p.churn(rnd)
				switch i % 3 {
				case 0:
					f = old(t, f, nil)
				case 1:
					f = old(t, f, odd)
				}
				apply(t, r, f)
				check(t, path, f)
			}
		})
	}
}

// TestApplyOldWithoutChecksums: those of Litestream itself bear no checksum of the
// database. An archive makes a base of them, a replica takes none.
func TestApplyOldWithoutChecksums(t *testing.T) {
	t.Parallel()
	p, path := newPrimary(t, 4096), replicaPath(t)
	r := open(t, Config{Path: path})
	f := p.bank()
	h := headerOf(t, f)
	h.Flags = ltx.HeaderFlagNoChecksum
	bare := old(t, reencode(t, f, h, 0, func([]uint32) []uint32 { return nil }), nil)
	if err := r.Apply(t.Context(), bare.section(), ApplyInfo{}); !errors.Is(err, ErrDamaged) || !r.Position().IsZero() {
		t.Fatalf("%v at %v", err, r.Position())
	}
}
