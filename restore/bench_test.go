package restore

import (
	"context"
	"io"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/objstore/dir"
	"github.com/ltxstream/ltxstream/objstore/levels"
)

// BenchmarkRestore restores a snapshot of 256 MB from a directory; bytes of the
// database.
func BenchmarkRestore(b *testing.B) {
	const pages, pageSize = 65536, 4096
	store, err := dir.New(b.Context(), dir.Config{Path: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	a := levels.New(store, levels.Decimal)
	pr, pw := io.Pipe()
	go func() { pw.CloseWithError(encodeRows(pw, pages, pageSize)) }()
	if _, err := store.Put(context.Background(), a.Key("app", levels.File{Level: levels.Snapshot, Min: 1, Max: 1}), pr, objstore.PutOptions{Timestamp: time.UnixMilli(1)}); err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(b.TempDir(), "out.db")
	b.SetBytes(pages * pageSize)
	for b.Loop() {
		if _, err := Restore(b.Context(), Config{Sources: []Source{Of(a, "app")}, Path: path, Force: true}); err != nil {
			b.Fatal(err)
		}
	}
}

// encodeRows writes a snapshot whose pages are rows of random and empty bytes in
// equal parts.
func encodeRows(w io.Writer, pages, pageSize int) error {
	enc, err := ltx.NewEncoder(w)
	if err != nil {
		return err
	}
	if err := enc.EncodeHeader(ltx.Header{Version: ltx.Version, PageSize: uint32(pageSize), Commit: uint32(pages), MinTXID: 1, MaxTXID: 1, Timestamp: 1}); err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(1, 1))
	page := make([]byte, pageSize)
	sum := ltx.Checksum(ltx.ChecksumFlag)
	for pgno := uint32(1); pgno <= uint32(pages); pgno++ {
		for i := range page {
			if page[i] = 0; i%512 < 256 {
				page[i] = byte(rng.Uint32())
			}
		}
		sum = ltx.ChecksumFlag | (sum ^ ltx.ChecksumPage(pgno, page))
		if err := enc.EncodePage(ltx.PageHeader{Pgno: pgno}, page); err != nil {
			return err
		}
	}
	enc.SetPostApplyChecksum(sum)
	return enc.Close()
}
