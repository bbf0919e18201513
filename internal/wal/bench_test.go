//go:build cgo

package wal

import (
	"crypto/rand"
	"fmt"
	"testing"
)

func randomPage(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func BenchmarkSumExtend4K(b *testing.B) {
	page := randomPage(4096)
	for _, big := range []bool{false, true} {
		b.Run(fmt.Sprintf("bigEndian=%v", big), func(b *testing.B) {
			b.SetBytes(4096)
			var s Sum
			for b.Loop() {
				s = s.Extend(page, big)
			}
		})
	}
}

func BenchmarkChainNext4K(b *testing.B) {
	c := StartChain(FileHeader{PageSize: 4096, Salt: Salt{1, 2}}, Sum{})
	fb := append(make([]byte, FrameHeaderSize), randomPage(4096)...)
	start := c
	c.Put(fb, FrameHeader{Pgno: 1, Commit: 1})
	b.SetBytes(int64(len(fb)))
	for b.Loop() {
		c := start
		if _, err := c.Next(fb); err != nil {
			b.Fatal(err)
		}
	}
}

// benchAppend appends one transaction of n pages of 4 KB.
func benchAppend(b *testing.B, d *DB, n uint32, page []byte, count uint32) {
	a, err := d.Begin(4096, false)
	must(b, err)
	for i := range n - 1 {
		must(b, a.Add(2+i, 0, page))
	}
	must(b, a.Add(n+1, count, page))
	_, err = a.Commit(count)
	must(b, err)
}

func benchDB(b *testing.B) (*DB, uint32) {
	path, f := newDatabase(b, "go", 4096)
	f.insert(1200, 4000)
	f.exec("PRAGMA wal_checkpoint(TRUNCATE)")
	d := openDB(b, path)
	must(b, d.Pin())
	for _, l := range []Lock{Write, Ckpt} {
		must(b, d.TryLock(l))
	}
	return d, header(b, d).PageCount
}

func benchRestart(b *testing.B, d *DB) {
	if _, err := d.Backfill(b.Context()); err != nil {
		b.Fatal(err)
	}
	must(b, d.Restart(NextGeneration(header(b, d))))
}

func BenchmarkAppend10Pages(b *testing.B) {
	d, count := benchDB(b)
	page := randomPage(4096)
	b.SetBytes(10 * 4096)
	for b.Loop() {
		benchAppend(b, d, 10, page, count)
		if header(b, d).MaxFrame > 8000 {
			b.StopTimer()
			benchRestart(b, d)
			b.StartTimer()
		}
	}
}

func BenchmarkBackfill1000Frames(b *testing.B) {
	d, count := benchDB(b)
	page := randomPage(4096)
	b.SetBytes(1000 * 4096)
	for b.Loop() {
		b.StopTimer()
		benchAppend(b, d, 1000, page, count)
		b.StartTimer()
		res, err := d.Backfill(b.Context())
		if err != nil || !res.Done() {
			b.Fatalf("%+v, %v", res, err)
		}
		b.StopTimer()
		benchRestart(b, d)
		b.StartTimer()
	}
}
