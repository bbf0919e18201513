package compactor

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/superfly/ltx"
)

// benchFiles makes a snapshot of n pages and 30 increments of n/50 pages each.
func benchFiles(b *testing.B, n int) [][]byte {
	b.Helper()
	rng := rand.New(rand.NewPCG(1, 1))
	const pageSize = 4096
	page := make([]byte, pageSize)
	var all [][]byte
	for i := range 31 {
		var buf bytes.Buffer
		enc, err := ltx.NewEncoder(&buf)
		if err != nil {
			b.Fatal(err)
		}
		hdr := ltx.Header{Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum, PageSize: pageSize, Commit: uint32(n), MinTXID: ltx.TXID(i + 1), MaxTXID: ltx.TXID(i + 1), Timestamp: int64(i)}
		if err := enc.EncodeHeader(hdr); err != nil {
			b.Fatal(err)
		}
		for pgno := 1; pgno <= n; pgno++ {
			if i > 0 && rng.IntN(50) != 0 {
				continue
			}
			for j := range pageSize / 16 { // rows: half random, half text
				copy(page[j*16:], "some text")
				page[j*16+9], page[j*16+10], page[j*16+11] = byte(rng.Uint32()), byte(rng.Uint32()), byte(pgno)
			}
			if err := enc.EncodePage(ltx.PageHeader{Pgno: uint32(pgno)}, page); err != nil {
				b.Fatal(err)
			}
		}
		if err := enc.Close(); err != nil {
			b.Fatal(err)
		}
		all = append(all, buf.Bytes())
	}
	return all
}

func size(files [][]byte) (n int64) {
	for _, f := range files {
		n += int64(len(f))
	}
	return n
}

// BenchmarkMerge against BenchmarkCompactor, superfly/ltx' own: bytes of input.
func BenchmarkMerge(b *testing.B) {
	files := benchFiles(b, 30_000)
	b.SetBytes(size(files))
	for b.Loop() {
		if _, err := Merge(b.Context(), io.Discard, inputsOf(files...), MergeOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCompactor(b *testing.B) {
	files := benchFiles(b, 30_000)
	b.SetBytes(size(files))
	for b.Loop() {
		readers := make([]io.Reader, len(files))
		for i, f := range files {
			readers[i] = bytes.NewReader(f)
		}
		c, err := ltx.NewCompactor(io.Discard, readers)
		if err != nil {
			b.Fatal(err)
		}
		c.HeaderFlags = ltx.HeaderFlagNoChecksum
		if err := c.Compact(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
