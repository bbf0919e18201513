package ltxfile

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/superfly/ltx"
)

// encodeFull makes a file of all n pages under a header; of those, drop is left
// out.
func encodeFull(t testing.TB, hdr ltx.Header, n, drop uint32, post ltx.Checksum) (file []byte, sum ltx.Checksum) {
	t.Helper()
	hdr.Version, hdr.PageSize, hdr.Commit, hdr.MaxTXID = ltx.Version, 512, n, 9
	var buf bytes.Buffer
	enc, err := ltx.NewEncoder(&buf)
	if err == nil {
		err = enc.EncodeHeader(hdr)
	}
	sum = ltx.ChecksumFlag
	for pgno := uint32(1); pgno <= n; pgno++ {
		page := bytes.Repeat([]byte{byte(pgno)}, 512)
		sum = ltx.ChecksumFlag | (sum ^ ltx.ChecksumPage(pgno, page))
		if pgno != drop {
			err = errors.Join(err, enc.EncodePage(ltx.PageHeader{Pgno: pgno}, page))
		}
	}
	if post == 0 {
		post = sum
	}
	if !hdr.NoChecksum() {
		enc.SetPostApplyChecksum(post)
	}
	if err := errors.Join(err, enc.Close()); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes(), sum
}

func TestVerify(t *testing.T) {
	t.Parallel()
	const wrong = ltx.ChecksumFlag | 5
	later := ltx.Header{MinTXID: 9, PreApplyChecksum: ltx.ChecksumFlag | 3}
	bare := ltx.Header{MinTXID: 1, Flags: ltx.HeaderFlagNoChecksum}
	for name, c := range map[string]struct {
		hdr           ltx.Header
		drop          uint32
		post          ltx.Checksum
		whole, verify bool // no error
	}{
		"snapshot":                     {ltx.Header{MinTXID: 1}, 0, 0, true, true},
		"snapshot, wrong checksum":     {ltx.Header{MinTXID: 1}, 0, wrong, false, false},
		"snapshot, page missing":       {ltx.Header{MinTXID: 1}, 20, 0, false, false},
		"later full file":              {later, 0, 0, true, true},
		"later file, wrong checksum":   {later, 0, wrong, false, true},
		"later file, page missing":     {later, 7, 0, false, true},
		"without checksum":             {bare, 0, 0, true, true},
		"without checksum, page short": {bare, 20, 0, false, false},
	} {
		file, sum := encodeFull(t, c.hdr, 20, c.drop, c.post)
		all := map[string][]byte{"sized": file}
		if c.verify {
			all = forms(t, file)
		}
		for form, b := range all {
			got, err := Verify(bytes.NewReader(b))
			if (err == nil) != c.verify || err != nil && !errors.Is(err, ErrDamaged) {
				t.Errorf("%s, %s: %v", name, form, err)
			}
			if err := got.Whole(); (err == nil) != c.whole || err != nil && !errors.Is(err, ErrDamaged) {
				t.Errorf("%s, %s: whole: %v", name, form, err)
			}
			if got.Size != int64(len(b)) || c.drop == 0 && (got.Pages != 20 || got.Sum != sum) {
				t.Errorf("%s, %s: %+v", name, form, got)
			}
		}
	}
}

// TestVerifierAllocatesNothing for a file, once it has seen one like it.
func TestVerifierAllocatesNothing(t *testing.T) { // not parallel: it counts allocations
	for form, b := range forms(t, encode(t, rand.New(rand.NewPCG(5, 5)), 4096, 50)) {
		var v Verifier
		r := bytes.NewReader(b)
		n := testing.AllocsPerRun(20, func() {
			r.Reset(b)
			if _, err := v.Verify(r); err != nil {
				t.Fatal(err)
			}
		})
		if n != 0 {
			t.Errorf("%s: %v allocations for a file", form, n)
		}
	}
}

// BenchmarkVerify reads pages of 4 KiB in each form; bytes of pages.
func BenchmarkVerify(b *testing.B) {
	const pages = 500
	for form, file := range forms(b, encode(b, rand.New(rand.NewPCG(8, 8)), 4096, pages)) {
		b.Run(form, func(b *testing.B) {
			var v Verifier
			b.SetBytes(pages * 4096)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(bytes.NewReader(file)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
