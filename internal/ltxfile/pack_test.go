package ltxfile

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/superfly/ltx"
)

// TestPackIsEqual: a file of packed pages is, byte for byte, what the encoder of
// superfly/ltx writes.
func TestPackIsEqual(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 2))
	for size := uint32(512); size <= 65536; size *= 2 {
		hdr := ltx.Header{Version: ltx.Version, PageSize: size, Commit: 40, MinTXID: 7, MaxTXID: 7, Timestamp: 1, PreApplyChecksum: ltx.ChecksumFlag | 5}
		var want, got bytes.Buffer
		enc, err := ltx.NewEncoder(&want)
		if err == nil {
			err = enc.EncodeHeader(hdr)
		}
		if err != nil {
			t.Fatal(err)
		}
		w, err := NewWriter(&got, hdr, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		var buf []byte
		for pgno := uint32(1); pgno <= 40; pgno += 1 + rng.Uint32N(3) {
			page := make([]byte, size)
			for i := range rng.IntN(int(size) + 1) { // from empty to incompressible
				page[i] = byte(rng.Uint32())
			}
			if err := enc.EncodePage(ltx.PageHeader{Pgno: pgno}, page); err != nil {
				t.Fatal(err)
			}
			f, err := Pack(buf, pgno, page)
			if err != nil {
				t.Fatal(err)
			}
			if buf = f.Raw; w.Frame(f, DataCRC(page)) != nil {
				t.Fatal("write frame")
			}
		}
		enc.SetPostApplyChecksum(ltx.ChecksumFlag | 9)
		if err := enc.Close(); err != nil {
			t.Fatal(err)
		}
		trailer, n, err := w.Finish(ltx.ChecksumFlag | 9)
		if err != nil || !bytes.Equal(want.Bytes(), got.Bytes()) || n != int64(got.Len()) || trailer != enc.Trailer() {
			t.Errorf("pages of %d bytes: %d bytes, %+v, %v; want %d, %+v", size, n, trailer, err, want.Len(), enc.Trailer())
		}
	}
}
