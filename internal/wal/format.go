package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Sizes of the -wal file, in bytes (fileformat2.html section 4.1).
const (
	FileHeaderSize  = 32
	FrameHeaderSize = 24
)

const (
	magicLittle   = 0x377f0682
	magicBig      = 0x377f0683
	formatVersion = 3007000
)

// ErrFormat is the cause of every error about bytes that are not a WAL.
var ErrFormat = errors.New("not a valid WAL")

// Salt is salt-1 and salt-2 of a WAL generation. A restart adds one to the
// first and draws the second anew; a fresh WAL draws both.
type Salt [2]uint32

// FileHeader is the header of a -wal file.
type FileHeader struct {
	BigEndian bool // byte order of the checksums
	PageSize  uint32
	Sequence  uint32 // checkpoint sequence number
	Salt      Salt
}

// Encode writes h into b[:FileHeaderSize] and returns its checksum, with which
// the chain of frames begins.
func (h FileHeader) Encode(b []byte) Sum {
	magic := uint32(magicLittle)
	if h.BigEndian {
		magic = magicBig
	}
	binary.BigEndian.PutUint32(b[0:], magic)
	binary.BigEndian.PutUint32(b[4:], formatVersion)
	binary.BigEndian.PutUint32(b[8:], h.PageSize)
	binary.BigEndian.PutUint32(b[12:], h.Sequence)
	binary.BigEndian.PutUint32(b[16:], h.Salt[0])
	binary.BigEndian.PutUint32(b[20:], h.Salt[1])
	sum := Sum{}.Extend(b[:24], h.BigEndian)
	binary.BigEndian.PutUint32(b[24:], sum[0])
	binary.BigEndian.PutUint32(b[28:], sum[1])
	return sum
}

// ParseFileHeader decodes the first FileHeaderSize bytes of a -wal file and
// returns the checksum with which the chain of frames begins. Errors wrap
// ErrFormat.
func ParseFileHeader(b []byte) (FileHeader, Sum, error) {
	if len(b) < FileHeaderSize {
		return FileHeader{}, Sum{}, fmt.Errorf("wal header of %d bytes: %w", len(b), ErrFormat)
	}
	magic := binary.BigEndian.Uint32(b)
	if magic != magicLittle && magic != magicBig {
		return FileHeader{}, Sum{}, fmt.Errorf("wal magic %#x: %w", magic, ErrFormat)
	}
	if v := binary.BigEndian.Uint32(b[4:]); v != formatVersion {
		return FileHeader{}, Sum{}, fmt.Errorf("wal version %d: %w", v, ErrFormat)
	}
	h := FileHeader{
		BigEndian: magic == magicBig,
		PageSize:  binary.BigEndian.Uint32(b[8:]),
		Sequence:  binary.BigEndian.Uint32(b[12:]),
		Salt:      Salt{binary.BigEndian.Uint32(b[16:]), binary.BigEndian.Uint32(b[20:])},
	}
	if !validPageSize(h.PageSize) {
		return FileHeader{}, Sum{}, fmt.Errorf("wal page size %d: %w", h.PageSize, ErrFormat)
	}
	sum := Sum{}.Extend(b[:24], h.BigEndian)
	if sum != (Sum{binary.BigEndian.Uint32(b[24:]), binary.BigEndian.Uint32(b[28:])}) {
		return FileHeader{}, Sum{}, fmt.Errorf("wal header checksum: %w", ErrFormat)
	}
	return h, sum, nil
}

func validPageSize(n uint32) bool { return n >= 512 && n <= 65536 && n&(n-1) == 0 }

// FrameHeader is what the header of one frame says of its page.
type FrameHeader struct {
	Pgno   uint32 // page number, from 1
	Commit uint32 // size of the database in pages after a commit frame; else 0
}

// FrameOffset returns the byte offset in the -wal file of the header of frame
// (numbered from 1).
func FrameOffset(frame, pageSize uint32) int64 {
	return FileHeaderSize + int64(frame-1)*int64(pageSize+FrameHeaderSize)
}

// FramesIn returns how many whole frames a -wal file of size bytes can hold.
func FramesIn(size int64, pageSize uint32) uint32 {
	if size < FileHeaderSize {
		return 0
	}
	return uint32((size - FileHeaderSize) / int64(pageSize+FrameHeaderSize))
}

// LockPgno returns the number of the lock page: the page at byte 0x40000000,
// which SQLite never uses (fileformat2.html section 1.3.2).
func LockPgno(pageSize uint32) uint32 { return 0x40000000/pageSize + 1 }
