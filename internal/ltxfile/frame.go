package ltxfile

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/pierrec/lz4/v4"
	"github.com/superfly/ltx"
)

// sizedHead is the length in bytes of what precedes a page's LZ4 block: page
// number, flags, size of the block.
const sizedHead = ltx.PageHeaderSize + 4

// ErrDamaged is what every error about a file's content wraps.
var ErrDamaged = errors.New("damaged LTX file")

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrDamaged, fmt.Errorf(format, args...))
}

// maxFrameSize is the greatest length of a frame that holds a page of such a
// size.
func maxFrameSize(pageSize uint32) int {
	return sizedHead + lz4.CompressBlockBound(int(pageSize))
}

// Frame is one page as it is stored.
type Frame struct {
	Pgno uint32
	Raw  []byte // the whole frame: header and LZ4 block
}

// header is the part before the LZ4 block.
func (f Frame) header() []byte { return f.Raw[:sizedHead] }

// Decode unpacks the frame into page, which is as long as a page.
func (f Frame) Decode(page []byte) error {
	n, err := lz4.UncompressBlock(f.Raw[sizedHead:], page)
	if err != nil {
		return damaged("page %d: %w", f.Pgno, err)
	}
	if n != len(page) {
		return damaged("page %d holds %d of %d bytes", f.Pgno, n, len(page))
	}
	return nil
}

// ParseFrame checks that raw is exactly one frame, that of page pgno.
func ParseFrame(raw []byte, pgno uint32) (Frame, error) {
	if len(raw) <= sizedHead {
		return Frame{}, damaged("page %d: a frame of %d bytes", pgno, len(raw))
	}
	have, flags, size := binary.BigEndian.Uint32(raw), binary.BigEndian.Uint16(raw[4:]), binary.BigEndian.Uint32(raw[6:])
	if have != pgno || flags != ltx.PageHeaderFlagSize || int64(size) != int64(len(raw)-sizedHead) {
		return Frame{}, damaged("page %d: the frame says page %d, flags %#x, %d bytes", pgno, have, flags, size)
	}
	return Frame{Pgno: pgno, Raw: raw}, nil
}
