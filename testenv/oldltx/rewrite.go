package oldltx

import (
	"bytes"
	"encoding/binary"
	"hash"
	"hash/crc64"
	"io"
	"testing"

	"github.com/pierrec/lz4/v4"
	"github.com/superfly/ltx"
)

// Rewrite makes the file anew with those pages as LZ4 frames that old names, nil:
// with all of them. Everything else is as it was.
func Rewrite(t testing.TB, file []byte, old func(pgno uint32) bool) []byte {
	t.Helper()
	dec := ltx.NewDecoder(bytes.NewReader(file))
	if err := dec.DecodeHeader(); err != nil {
		t.Fatal(err)
	}
	w := &writer{hash: crc64.New(crc64.MakeTable(crc64.ISO))}
	w.write(file[:ltx.HeaderSize])
	var index []byte
	page := make([]byte, dec.Header().PageSize)
	for {
		var h ltx.PageHeader
		if err := dec.DecodePage(&h, page); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		begin := w.out.Len()
		w.page(t, h.Pgno, page, old == nil || old(h.Pgno))
		index = binary.AppendUvarint(index, uint64(h.Pgno))
		index = binary.AppendUvarint(index, uint64(begin))
		index = binary.AppendUvarint(index, uint64(w.out.Len()-begin))
	}
	if err := dec.Close(); err != nil {
		t.Fatal(err)
	}
	index = append(index, 0)
	w.write(make([]byte, ltx.PageHeaderSize))
	w.write(binary.BigEndian.AppendUint64(index, uint64(len(index))))
	w.write(binary.BigEndian.AppendUint64(nil, uint64(dec.Trailer().PostApplyChecksum)))
	w.write(binary.BigEndian.AppendUint64(nil, uint64(ltx.ChecksumFlag)|w.hash.Sum64()))
	return w.out.Bytes()
}

// writer writes what is a part of the file's checksum as it is.
type writer struct {
	out  bytes.Buffer
	hash hash.Hash64
}

func (w *writer) write(b []byte) {
	w.out.Write(b)
	w.hash.Write(b)
}

func (w *writer) page(t testing.TB, pgno uint32, page []byte, old bool) {
	t.Helper()
	head := binary.BigEndian.AppendUint32(nil, pgno)
	if old {
		w.write(append(head, 0, 0))
		w.out.Write(frame(t, page))
	} else {
		block := block(t, page)
		w.write(binary.BigEndian.AppendUint32(append(head, 0, byte(ltx.PageHeaderFlagSize)), uint32(len(block))))
		w.out.Write(block)
	}
	w.hash.Write(page)
}

func frame(t testing.TB, page []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	zw := lz4.NewWriter(&buf)
	if err := zw.Apply(lz4.BlockSizeOption(lz4.Block64Kb), lz4.CompressionLevelOption(lz4.Fast)); err != nil {
		t.Fatal(err)
	}
	if _, err := zw.Write(page); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func block(t testing.TB, page []byte) []byte {
	t.Helper()
	out := make([]byte, lz4.CompressBlockBound(len(page)))
	n, err := lz4.CompressBlock(page, out, nil)
	if err != nil || n == 0 {
		t.Fatalf("compress a page: %d bytes, %v", n, err)
	}
	return out[:n]
}
