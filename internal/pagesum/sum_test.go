package pagesum

import (
	"math/rand/v2"
	"testing"

	"github.com/superfly/ltx"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func randomPage(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func TestOfEqualsLTX(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for n := 512; n <= 65536; n *= 2 {
		for range 5 {
			page, pgno := randomPage(r, n), r.Uint32()
			if got, want := Of(pgno, page), ltx.ChecksumPage(pgno, page); got != want {
				t.Fatalf("page %d of %d bytes: %s, want %s", pgno, n, got, want)
			}
		}
	}
}

func BenchmarkOf4K(b *testing.B) {
	page := randomPage(rand.New(rand.NewPCG(1, 1)), 4096)
	b.SetBytes(4096)
	for b.Loop() {
		Of(7, page)
	}
}

func BenchmarkUpdate10Pages(b *testing.B) {
	t := openTable(b, b.TempDir()+"/sums")
	t.Reset(4096)
	if err := t.Update(ltx.Pos{TXID: 1}, 10000, nil); err != nil {
		b.Fatal(err)
	}
	var pages []Page
	for i := range uint32(10) {
		pages = append(pages, Page{Pgno: 1 + i*997, Sum: ltx.ChecksumFlag | ltx.Checksum(i)})
	}
	for b.Loop() {
		pos := ltx.Pos{TXID: 2, PostApplyChecksum: t.After(10000, pages)}
		if err := t.Update(pos, 10000, pages); err != nil {
			b.Fatal(err)
		}
	}
}
