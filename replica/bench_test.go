package replica

import (
	"fmt"
	"io"
	"log/slog"
	"testing"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/pagesum"
)

// BenchmarkApply applies files of n changed pages to a database of 4,000 pages,
// checkpoints and WAL restarts included.
func BenchmarkApply(b *testing.B) {
	for _, n := range []int{1, 10, 1000} {
		b.Run(fmt.Sprintf("pages=%d", n), func(b *testing.B) {
			r, chain := benchReplica(b, n)
			b.SetBytes(int64(n) * benchPage)
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				f := chain.next()
				b.StartTimer()
				if err := r.Apply(b.Context(), f.section(), ApplyInfo{Seq: at(1)}); err != nil {
					b.Fatal(err)
				}
			}
			s := r.Status()
			b.ReportMetric(float64(s.Restarts)/float64(b.N), "restarts/op")
			b.ReportMetric(float64(s.LongestPause.Milliseconds()), "ms-longest-pause")
		})
	}
}

const benchPage = 4096

// benchChain makes files without SQLite: page images that change a little.
type benchChain struct {
	tb    testing.TB
	image []byte
	pos   ltx.Pos
	sums  []ltx.Checksum
	n, at int
}

func benchReplica(b *testing.B, n int) (*Replica, *benchChain) {
	b.Helper()
	p := newPrimary(b, benchPage)
	p.bank()
	p.exec("CREATE TABLE big(id INTEGER PRIMARY KEY, b BLOB)")
	p.exec("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<4000) INSERT INTO big(b) SELECT randomblob(3900) FROM n")
	p.pos, p.image = ltx.Pos{}, nil
	first := p.step()
	path := replicaPath(b)
	r, err := Open(b.Context(), Config{Path: path, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { r.Close() })
	if err := r.Apply(b.Context(), first.section(), ApplyInfo{}); err != nil {
		b.Fatal(err)
	}
	c := &benchChain{tb: b, image: append([]byte(nil), first.image...), pos: first.pos, n: n, at: 100}
	for i := range len(c.image) / benchPage {
		c.sums = append(c.sums, pagesum.Of(uint32(i+1), c.image[i*benchPage:(i+1)*benchPage]))
	}
	return r, c
}

func (c *benchChain) next() file {
	count := uint32(len(c.sums))
	if c.at+c.n >= int(count) {
		c.at = 100
	}
	h := ltx.Header{Version: ltx.Version, PageSize: benchPage, Commit: count, MinTXID: c.pos.TXID + 1, MaxTXID: c.pos.TXID + 1, PreApplyChecksum: c.pos.PostApplyChecksum}
	post := c.pos.PostApplyChecksum
	var list []uint32
	for i := c.at; i < c.at+c.n; i++ {
		page := c.image[i*benchPage : (i+1)*benchPage]
		page[4000]++
		sum := pagesum.Of(uint32(i+1), page)
		post = ltx.ChecksumFlag | (post ^ c.sums[i] ^ sum)
		c.sums[i] = sum
		list = append(list, uint32(i+1))
	}
	c.at += c.n
	f := encodeFile(c.tb, h, post, list, func(n uint32) []byte { return c.image[(n-1)*benchPage : n*benchPage] }, nil)
	c.pos = f.pos
	return f
}
