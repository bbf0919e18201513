package ltxfile

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/crc64iso"
)

// Entry says where the frame of a page lies in its file.
type Entry struct {
	Pgno         uint32
	Offset, Size int64 // bytes, of the whole frame
}

const indexSizeLen = 8 // bytes of the length at the index's end

// appendEntry appends the entry as the index stores it: three varints.
func appendEntry(b []byte, e Entry) []byte {
	b = binary.AppendUvarint(b, uint64(e.Pgno))
	b = binary.AppendUvarint(b, uint64(e.Offset))
	return binary.AppendUvarint(b, uint64(e.Size))
}

// indexSum is the length and CRC of the index that some frames ask for.
type indexSum struct {
	crc  uint64
	size int64
	rec  [3 * binary.MaxVarintLen64]byte
}

func (x *indexSum) add(e Entry) { x.bytes(appendEntry(x.rec[:0], e)) }
func (x *indexSum) end()        { x.bytes([]byte{0}) }

func (x *indexSum) bytes(b []byte) {
	x.crc = crc64iso.Update(x.crc, b)
	x.size += int64(len(b))
}

// TailSize is how many bytes at the end of a file tell where its index begins.
const TailSize = indexSizeLen + ltx.TrailerSize

// IndexStart returns the offset of the page index in a file of the given size
// whose last [TailSize] bytes are tail.
func IndexStart(tail []byte, size int64) (int64, error) {
	n := binary.BigEndian.Uint64(tail)
	room := size - TailSize - ltx.HeaderSize - ltx.PageHeaderSize
	if room < 1 || n < 1 || n > uint64(room) {
		return 0, damaged("a page index of %d bytes in a file of %d", n, size)
	}
	return size - TailSize - int64(n), nil
}

// ReadIndex reads the entries of a page index from r, which ends with it, and
// hands them to see. start is its offset in the file. Entries are in order, do
// not overlap and lie between header and index; whether the frames are what
// they say shows when they are read.
func ReadIndex(r io.Reader, start int64, pageSize, commit uint32, see func(Entry)) error {
	br := bufio.NewReader(r)
	next, prev := int64(ltx.HeaderSize), uint32(0)
	for {
		pgno, err := binary.ReadUvarint(br)
		if err != nil {
			return indexErr(err)
		}
		if pgno == 0 {
			return nil
		}
		offset, err1 := binary.ReadUvarint(br)
		size, err2 := binary.ReadUvarint(br)
		if err := errors.Join(err1, err2); err != nil {
			return indexErr(err)
		}
		bad := pgno <= uint64(prev) || pgno > uint64(commit) || size <= sizedHead || size > uint64(maxFrameSize(pageSize))
		if bad || offset != uint64(next) || next+int64(size) > start {
			return damaged("its page index says page %d lies at %d, %d bytes", pgno, offset, size)
		}
		see(Entry{Pgno: uint32(pgno), Offset: next, Size: int64(size)})
		prev, next = uint32(pgno), next+int64(size)
	}
}

func indexErr(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return damaged("its page index is cut off")
	}
	return err
}
