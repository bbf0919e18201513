package generations

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// frames passes on what is said to be LZ4 frames, and follows their structure:
// the decoder takes bytes that end between two blocks, or before the checksum, for
// the end of the data. An end inside a frame is io.ErrUnexpectedEOF here, and so
// is no frame at all.
//
// Source: doc/lz4_Frame_format.md of the lz4 project, version 1.6.
type frames struct {
	r     io.Reader
	part  framePart
	left  int64  // bytes of the part that are still to come
	head  []byte // of the part, where it is a number or the descriptor
	flags byte   // of the frame
	begun bool   // there was a frame
}

type framePart int

const (
	frameMagic framePart = iota
	frameFlags
	frameRest // of the descriptor
	blockSize
	blockData
	frameSum
)

const (
	magic          = 0x184d2204
	hasDictionary  = 1 << 0
	hasContentSum  = 1 << 2
	hasContentSize = 1 << 3
	hasBlockSums   = 1 << 4
	isStored       = 1 << 31 // of a block's size: the block is not compressed
)

// Errors about objects that are not LZ4 frames.
var (
	errNoFrame   = errors.New("not an LZ4 frame")
	errEncrypted = errors.New("it is encrypted with age, which is not read here: decrypt it first")
)

func newFrames(r io.Reader) *frames { return &frames{r: r, left: 4} }

func (f *frames) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if bad := f.follow(p[:n]); bad != nil {
		return 0, bad
	}
	if err == io.EOF && !f.whole() {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// whole reports whether the bytes so far may end here.
func (f *frames) whole() bool { return f.begun && f.part == frameMagic && len(f.head) == 0 }

func (f *frames) follow(p []byte) error {
	for len(p) > 0 {
		n := min(f.left, int64(len(p)))
		if f.part != blockData {
			f.head = append(f.head, p[:n]...)
		}
		p, f.left = p[n:], f.left-n
		for f.left == 0 { // the next part may be of no bytes
			if err := f.next(); err != nil {
				return err
			}
			f.head = f.head[:0]
		}
	}
	return nil
}

// next goes to the part behind the one that is complete.
func (f *frames) next() error {
	switch f.part {
	case frameMagic:
		if binary.LittleEndian.Uint32(f.head) != magic {
			if string(f.head) == "age-" {
				return errEncrypted
			}
			return fmt.Errorf("%w: it begins with %q", errNoFrame, f.head)
		}
		f.part, f.left = frameFlags, 1
	case frameFlags:
		f.begun, f.flags = true, f.head[0]
		f.part, f.left = frameRest, 2+f.optional(hasContentSize, 8)+f.optional(hasDictionary, 4) // block sizes, checksum
	case blockSize:
		size := binary.LittleEndian.Uint32(f.head)
		if size == 0 {
			f.part, f.left = frameSum, f.optional(hasContentSum, 4)
		} else {
			f.part, f.left = blockData, int64(size&^isStored)+f.optional(hasBlockSums, 4)
		}
	case frameRest, blockData:
		f.part, f.left = blockSize, 4
	case frameSum:
		f.part, f.left = frameMagic, 4
	}
	return nil
}

func (f *frames) optional(flag byte, size int64) int64 {
	if f.flags&flag == 0 {
		return 0
	}
	return size
}
