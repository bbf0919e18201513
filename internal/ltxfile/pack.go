package ltxfile

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/pierrec/lz4/v4"
	"github.com/superfly/ltx"
)

// Pack makes the frame of a page in buf, which may be nil; the frame's Raw is the
// buffer to use for the next one. It is compressed as the encoder of superfly/ltx
// does it. Safe for concurrent use.
func Pack(buf []byte, pgno uint32, page []byte) (Frame, error) {
	raw := slices.Grow(buf[:0], maxFrameSize(uint32(len(page))))[:maxFrameSize(uint32(len(page)))]
	n, err := lz4.CompressBlock(page, raw[sizedHead:], nil)
	if err != nil || n == 0 { // cannot be: there is room for whatever it becomes
		return Frame{}, fmt.Errorf("compress page %d of %d bytes to %d: %w", pgno, len(page), n, err)
	}
	binary.BigEndian.PutUint32(raw, pgno)
	binary.BigEndian.PutUint16(raw[4:], ltx.PageHeaderFlagSize)
	binary.BigEndian.PutUint32(raw[ltx.PageHeaderSize:], uint32(n))
	return Frame{Pgno: pgno, Raw: raw[:sizedHead+n]}, nil
}
