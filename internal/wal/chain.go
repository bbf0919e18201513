package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrChain is the cause of errors about a frame that does not continue the
// generation: other salts, a wrong checksum, page number 0.
var ErrChain = errors.New("frame does not continue the WAL")

// Chain is a place in one generation of a WAL: the frames 1..Frame with their
// running checksum. Verifying or writing the next frame needs nothing else.
// The zero Chain is no place at all.
type Chain struct {
	BigEndian bool // byte order of the checksums
	PageSize  uint32
	Salt      Salt
	Frame     uint32 // number of frames covered
	Sum       Sum    // running checksum of the file header and those frames
}

// StartChain returns the chain of a WAL with this header and no frame.
func StartChain(h FileHeader, sum Sum) Chain {
	return Chain{BigEndian: h.BigEndian, PageSize: h.PageSize, Salt: h.Salt, Sum: sum}
}

// FrameSize returns the size in bytes of one frame with its header.
func (c *Chain) FrameSize() int { return FrameHeaderSize + int(c.PageSize) }

// Next verifies that frame (header and page) is the one that follows c, and
// moves c past it. On error, which wraps ErrChain, c stays.
func (c *Chain) Next(frame []byte) (FrameHeader, error) {
	if !validPageSize(c.PageSize) {
		return FrameHeader{}, fmt.Errorf("page size %d: %w", c.PageSize, ErrChain)
	}
	frame = frame[:c.FrameSize()]
	h := FrameHeader{Pgno: binary.BigEndian.Uint32(frame), Commit: binary.BigEndian.Uint32(frame[4:])}
	if h.Pgno == 0 {
		return FrameHeader{}, fmt.Errorf("frame %d: page number 0: %w", c.Frame+1, ErrChain)
	}
	salt := Salt{binary.BigEndian.Uint32(frame[8:]), binary.BigEndian.Uint32(frame[12:])}
	if salt != c.Salt {
		return FrameHeader{}, fmt.Errorf("frame %d: salt %08x, want %08x: %w", c.Frame+1, salt, c.Salt, ErrChain)
	}
	sum := c.sumOf(frame)
	if sum != (Sum{binary.BigEndian.Uint32(frame[16:]), binary.BigEndian.Uint32(frame[20:])}) {
		return FrameHeader{}, fmt.Errorf("frame %d: checksum: %w", c.Frame+1, ErrChain)
	}
	c.Frame++
	c.Sum = sum
	return h, nil
}

// Put fills in the header of frame, whose page is already in place behind it,
// as the one that follows c, and moves c past it.
func (c *Chain) Put(frame []byte, h FrameHeader) {
	frame = frame[:c.FrameSize()]
	binary.BigEndian.PutUint32(frame, h.Pgno)
	binary.BigEndian.PutUint32(frame[4:], h.Commit)
	binary.BigEndian.PutUint32(frame[8:], c.Salt[0])
	binary.BigEndian.PutUint32(frame[12:], c.Salt[1])
	c.Sum = c.sumOf(frame)
	binary.BigEndian.PutUint32(frame[16:], c.Sum[0])
	binary.BigEndian.PutUint32(frame[20:], c.Sum[1])
	c.Frame++
}

func (c *Chain) sumOf(frame []byte) Sum {
	return c.Sum.Extend(frame[:8], c.BigEndian).Extend(frame[FrameHeaderSize:], c.BigEndian)
}
