package wal

import (
	"encoding/binary"
	"fmt"
)

// Header is the wal-index header (WalIndexHdr in wal.c; walformat.html section
// 2.1): the one place that says how much of the WAL is committed.
type Header struct {
	Change    uint32 // counts transactions
	BigEndian bool   // byte order of the checksums in the -wal file
	PageSize  uint32
	MaxFrame  uint32 // last committed frame; 0: the WAL holds nothing
	PageCount uint32 // size of the database, in pages
	FrameSum  Sum    // running checksum at MaxFrame
	Salt      Salt
}

const indexHeaderSize = 48

// Chain returns the place in the WAL that h describes. With MaxFrame 0 the
// checksum is not that of the file header, which the next writer will write.
func (h Header) Chain() Chain {
	return Chain{BigEndian: h.BigEndian, PageSize: h.PageSize, Salt: h.Salt, Frame: h.MaxFrame, Sum: h.FrameSum}
}

// encode writes h into b[:indexHeaderSize] in the machine's byte order.
func (h Header) encode(b []byte) {
	ne := binary.NativeEndian
	ne.PutUint32(b[0:], formatVersion)
	ne.PutUint32(b[4:], 0)
	ne.PutUint32(b[8:], h.Change)
	b[12] = 1
	b[13] = 0
	if h.BigEndian {
		b[13] = 1
	}
	ne.PutUint16(b[14:], uint16(h.PageSize&0xff00|h.PageSize>>16))
	ne.PutUint32(b[16:], h.MaxFrame)
	ne.PutUint32(b[20:], h.PageCount)
	ne.PutUint32(b[24:], h.FrameSum[0])
	ne.PutUint32(b[28:], h.FrameSum[1])
	binary.BigEndian.PutUint32(b[32:], h.Salt[0]) // kept as in the -wal file
	binary.BigEndian.PutUint32(b[36:], h.Salt[1])
	sum := Sum{}.Extend(b[:40], nativeBigEndian)
	ne.PutUint32(b[40:], sum[0])
	ne.PutUint32(b[44:], sum[1])
}

// parseHeader decodes one copy of the wal-index header. Errors wrap ErrFormat.
func parseHeader(b []byte) (Header, error) {
	ne := binary.NativeEndian
	if b[12] == 0 {
		return Header{}, fmt.Errorf("wal-index not initialised: %w", ErrFormat)
	}
	sum := Sum{}.Extend(b[:40], nativeBigEndian)
	if sum != (Sum{ne.Uint32(b[40:]), ne.Uint32(b[44:])}) {
		return Header{}, fmt.Errorf("wal-index header checksum: %w", ErrFormat)
	}
	if v := ne.Uint32(b); v != formatVersion {
		return Header{}, fmt.Errorf("wal-index version %d: %w", v, ErrFormat)
	}
	sz := uint32(ne.Uint16(b[14:]))
	return Header{
		Change:    ne.Uint32(b[8:]),
		BigEndian: b[13] != 0,
		PageSize:  sz&0xfe00 | sz&1<<16,
		MaxFrame:  ne.Uint32(b[16:]),
		PageCount: ne.Uint32(b[20:]),
		FrameSum:  Sum{ne.Uint32(b[24:]), ne.Uint32(b[28:])},
		Salt:      Salt{binary.BigEndian.Uint32(b[32:]), binary.BigEndian.Uint32(b[36:])},
	}, nil
}
