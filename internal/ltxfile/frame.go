package ltxfile

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/pierrec/lz4/v4"
	"github.com/superfly/ltx"
)

// ErrDamaged is what every error about a file's content wraps.
var ErrDamaged = errors.New("damaged LTX file")

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrDamaged, fmt.Errorf(format, args...))
}

// A page is stored in one of two forms, which the flags behind its number tell
// apart. A file may hold both.
//
// Sized, flags 1, by superfly/ltx v0.5.2 and later: the length of an LZ4 block, big
// endian, and the block.
//
// Framed, flags 0, by superfly/ltx v0.5.0 and v0.5.1: a whole LZ4 frame. All of
// them were written with the same settings, and a page is never larger than one of
// their blocks: the frame is lz4Start, the length of its one block, little endian,
// whose highest bit says that the block is not compressed, the block, four zeros,
// and the xxHash-32 of the page, little endian.
const (
	sizedHead  = ltx.PageHeaderSize + 4 // bytes before the block
	framedHead = ltx.PageHeaderSize + len(lz4Start) + 4
	framedTail = 4 + 4 // bytes behind it

	plainBlock = 1 << 31  // in the length of the block
	maxBlock   = 64 << 10 // bytes
)

// lz4Start is how each LZ4 frame of an LTX file begins: the magic number; version
// 1, independent blocks, a checksum of the content; blocks of 64 KiB; the checksum
// of these settings.
const lz4Start = "\x04\x22\x4d\x18\x64\x40\xa7"

// maxFrameSize is the greatest length of a frame, of either form, that holds a page
// of such a size.
func maxFrameSize(pageSize uint32) int {
	return sizedHead + lz4.CompressBlockBound(int(pageSize))
}

// pageHead is what a frame of either form begins with.
type pageHead struct {
	pgno  uint32
	flags uint16
}

func parsePageHead(b []byte) pageHead {
	return pageHead{pgno: binary.BigEndian.Uint32(b), flags: binary.BigEndian.Uint16(b[4:])}
}

func (h pageHead) fault(format string, args ...any) error {
	return damaged("page %d: %w", h.pgno, fmt.Errorf(format, args...))
}

// size is how many bytes at the beginning of the frame tell how long it is.
func (h pageHead) size() (int, error) {
	switch h.flags {
	case ltx.PageHeaderFlagSize:
		return sizedHead, nil
	case 0:
		return framedHead, nil
	case uint16(lz4Start[0])<<8 | uint16(lz4Start[1]): // right behind the page number
		return 0, h.fault("it has no flags: " + tooOld)
	}
	return 0, h.fault("unknown flags %#x", h.flags)
}

// frameSize returns the length of the frame that begins with b, as many bytes as
// size told.
func (h pageHead) frameSize(b []byte) (int64, error) {
	block, around := int64(0), int64(len(b))
	if h.flags == ltx.PageHeaderFlagSize {
		block = int64(binary.BigEndian.Uint32(b[ltx.PageHeaderSize:]))
	} else {
		if start := b[ltx.PageHeaderSize:]; string(start[:len(lz4Start)]) != lz4Start {
			return 0, h.fault("%x instead of an LZ4 frame", start[:len(lz4Start)])
		}
		block = int64(binary.LittleEndian.Uint32(b[framedHead-4:]) &^ plainBlock)
		if block > maxBlock {
			return 0, h.fault("a block of %d bytes", block)
		}
		around += framedTail
	}
	return around + block, nil
}

// Frame is one page as it is stored.
type Frame struct {
	Pgno uint32
	Raw  []byte // the whole of it: header, LZ4 block or LZ4 frame
}

func (f Frame) sized() bool { return parsePageHead(f.Raw).flags == ltx.PageHeaderFlagSize }

// header is what the file's checksum takes in as it is stored.
func (f Frame) header() []byte {
	if f.sized() {
		return f.Raw[:sizedHead]
	}
	return f.Raw[:ltx.PageHeaderSize]
}

// Decode unpacks the frame into page, which is as long as a page.
func (f Frame) Decode(page []byte) error {
	if f.sized() {
		return f.unpack(f.Raw[sizedHead:], page)
	}
	end := len(f.Raw) - framedTail
	block, tail := f.Raw[framedHead:end], f.Raw[end:]
	if f.Raw[framedHead-1]&(plainBlock>>24) == 0 {
		if err := f.unpack(block, page); err != nil {
			return err
		}
	} else if n := copy(page, block); n != len(page) || n != len(block) {
		return damaged("page %d holds %d bytes instead of %d", f.Pgno, len(block), len(page))
	}
	if more := binary.LittleEndian.Uint32(tail); more != 0 {
		return damaged("page %d: its LZ4 frame goes on behind the page", f.Pgno)
	}
	if got, want := pageHash(page), binary.LittleEndian.Uint32(tail[4:]); got != want {
		return damaged("page %d: the checksum of its LZ4 frame is %08x, want %08x", f.Pgno, got, want)
	}
	return nil
}

func (f Frame) unpack(block, page []byte) error {
	n, err := lz4.UncompressBlock(block, page)
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
	if len(raw) < ltx.PageHeaderSize {
		return Frame{}, damaged("page %d: a frame of %d bytes", pgno, len(raw))
	}
	head := parsePageHead(raw)
	if head.pgno != pgno {
		return Frame{}, damaged("page %d: the frame says page %d", pgno, head.pgno)
	}
	n, err := head.size()
	if err != nil {
		return Frame{}, err
	}
	if len(raw) < n {
		return Frame{}, head.fault("a frame of %d bytes", len(raw))
	}
	size, err := head.frameSize(raw[:n])
	if err != nil {
		return Frame{}, err
	}
	if size != int64(len(raw)) {
		return Frame{}, head.fault("a frame of %d bytes in %d", size, len(raw))
	}
	return Frame{Pgno: pgno, Raw: raw}, nil
}
