package replica

import (
	"errors"
	"testing"

	"github.com/superfly/ltx"
)

// unchecked is a file as Litestream writes it, without database checksums.
func unchecked(t *testing.T, f file) file {
	t.Helper()
	h := headerOf(t, f)
	h.Flags, h.PreApplyChecksum = ltx.HeaderFlagNoChecksum, 0
	bare := reencode(t, f, h, 0, func(list []uint32) []uint32 { return list })
	bare.pos, bare.image = f.pos, f.image
	return bare
}

// TestApplyWithoutChecksums: files without database checksums are applied where
// the caller says so, and the checksum of the position is that of the content.
func TestApplyWithoutChecksums(t *testing.T) {
	t.Parallel()
	rnd := seeded(t, 61)
	p, path := newPrimary(t, 4096), replicaPath(t)
	r := open(t, Config{Path: path})
	put := func(f file, info ApplyInfo) error {
		return r.Apply(t.Context(), unchecked(t, f).section(), info)
	}
	must := func(f file, full bool) {
		t.Helper()
		if err := put(f, ApplyInfo{NoChecksums: true, Full: full}); err != nil {
			t.Fatal(err)
		}
		if got := r.Position().Pos; got != f.pos {
			t.Fatalf("position %s, want %s", got, f.pos)
		}
		check(t, path, f)
	}
	base := p.bank()
	if err := put(base, ApplyInfo{}); !errors.Is(err, ErrDamaged) {
		t.Fatalf("a file without checksums that nobody vouched for: %v", err)
	}
	must(base, false)
	for range 30 {
		must(p.churn(rnd), false)
	}
	skipped, next := p.transfer(rnd), p.transfer(rnd)
	var pe *PosError
	if err := put(next, ApplyInfo{NoChecksums: true}); !errors.As(err, &pe) {
		t.Fatalf("a gap: %v", err)
	}
	must(skipped, false)
	if err := put(skipped, ApplyInfo{NoChecksums: true}); !errors.As(err, &pe) {
		t.Fatalf("a repetition: %v", err)
	}
	must(next, false)
	if err := put(p.transfer(rnd), ApplyInfo{}); !errors.Is(err, ErrDamaged) {
		t.Fatalf("a file without checksums that nobody vouched for: %v", err)
	}
	must(p.full(), true) // in place

	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r = open(t, Config{Path: path})
	if got := r.Position().Pos; got != p.pos || r.Status().FoundBy != foundByJournal {
		t.Fatalf("after Open: %s, found by %q, want %s", got, r.Status().FoundBy, p.pos)
	}
	last := p.transfer(rnd) // the two kinds may follow one another
	apply(t, r, last)
	check(t, path, last)
}
