package replica

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/ltxstream/ltxstream/internal/wal"
	"github.com/superfly/ltx"
)

// entry is one record of the position journal: the commit that ends with this
// frame of this generation of the WAL, and the position it brings.
type entry struct {
	Salt      wal.Salt
	Frame     uint32  // 0: a generation begins here, with the position of the one before
	Sum       wal.Sum // running checksum at Frame; zero with frame 0
	PageSize  uint32
	PageCount uint32
	Pos       Position
}

const (
	recordSize  = 64
	recordMagic = 0x4c545850 // "LTXP"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (e *entry) encode(b *[recordSize]byte) {
	be := binary.BigEndian
	be.PutUint32(b[0:], recordMagic)
	be.PutUint32(b[4:], e.PageSize)
	be.PutUint32(b[8:], e.PageCount)
	be.PutUint32(b[12:], e.Salt[0])
	be.PutUint32(b[16:], e.Salt[1])
	be.PutUint32(b[20:], e.Frame)
	be.PutUint32(b[24:], e.Sum[0])
	be.PutUint32(b[28:], e.Sum[1])
	be.PutUint64(b[32:], uint64(e.Pos.TXID))
	be.PutUint64(b[40:], uint64(e.Pos.PostApplyChecksum))
	be.PutUint64(b[48:], e.Pos.Seq)
	be.PutUint32(b[56:], 0)
	be.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
}

// parseEntry decodes a record; false: it is torn, damaged or none.
func parseEntry(b []byte) (entry, bool) {
	be := binary.BigEndian
	if len(b) < recordSize || be.Uint32(b) != recordMagic || be.Uint32(b[56:]) != 0 ||
		be.Uint32(b[60:]) != crc32.Checksum(b[:60], castagnoli) {
		return entry{}, false
	}
	e := entry{
		PageSize:  be.Uint32(b[4:]),
		PageCount: be.Uint32(b[8:]),
		Salt:      wal.Salt{be.Uint32(b[12:]), be.Uint32(b[16:])},
		Frame:     be.Uint32(b[20:]),
		Sum:       wal.Sum{be.Uint32(b[24:]), be.Uint32(b[28:])},
		Pos: Position{
			Pos: ltx.Pos{TXID: ltx.TXID(be.Uint64(b[32:])), PostApplyChecksum: ltx.Checksum(be.Uint64(b[40:]))},
			Seq: be.Uint64(b[48:]),
		},
	}
	return e, e.valid()
}

func (e *entry) valid() bool {
	return ltx.IsValidPageSize(e.PageSize) && e.PageCount != 0 && e.Pos.TXID != 0 && e.Pos.PostApplyChecksum&ltx.ChecksumFlag != 0
}

// commits reports whether e is the entry of the commit that h describes. Salts
// that are zero are those of no generation.
func (e *entry) commits(h wal.Header) bool {
	if h.Salt == (wal.Salt{}) || e.Salt != h.Salt || e.Frame != h.MaxFrame {
		return false
	}
	return e.Frame == 0 || e.Sum == h.FrameSum && e.PageSize == h.PageSize && e.PageCount == h.PageCount
}
