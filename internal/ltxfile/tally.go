package ltxfile

import (
	"encoding/binary"

	"github.com/superfly/ltx"
)

// Tally is the checksum of a file whose frames are read in any order: what is
// needed of each frame is noted, and added up at the end. 16 bytes a page.
type Tally struct {
	head     []byte
	pageSize uint32
	frames   []noted
}

// noted is a frame: its place follows from the sizes of those before it.
type noted struct {
	pgno uint32
	size uint32 // bytes; framedBit: an LZ4 frame
	crc  uint64 // of the decoded page
}

const framedBit = 1 << 31

// NewTally begins the tally of a file with that header, as it is stored.
func NewTally(head []byte, pageSize uint32) *Tally { return &Tally{head: head, pageSize: pageSize} }

// Expect notes the next entry of the page index, as [ReadIndex] hands them out.
func (t *Tally) Expect(e Entry) {
	t.frames = append(t.frames, noted{pgno: e.Pgno, size: uint32(e.Size)})
}

// Read notes that the frame of the i-th entry was read, and the [DataCRC] of its
// page. It may be called by several goroutines for different frames.
func (t *Tally) Read(i int, f Frame, dataCRC uint64) {
	t.frames[i].crc = dataCRC
	if !f.sized() {
		t.frames[i].size |= framedBit
	}
}

// Check returns an error, which wraps ErrDamaged, unless the file is the one that
// its trailer tells of. Every frame was read.
func (t *Tally) Check(trailer ltx.Trailer) error {
	sum := newSum(t.pageSize)
	sum.bytes(t.head)
	for _, f := range t.frames {
		sum.page(f.header(), f.crc)
	}
	sum.bytes(make([]byte, ltx.PageHeaderSize))
	sum.bytes(binary.BigEndian.AppendUint64(nil, uint64(t.index(&sum))))
	b, err := trailer.MarshalBinary()
	if err != nil {
		return err
	}
	sum.bytes(b[:ltx.TrailerChecksumOffset])
	if got := sum.checksum(); got != trailer.FileChecksum {
		return damaged("its checksum is %s, its trailer says %s", got, trailer.FileChecksum)
	}
	return nil
}

// index adds the page index to sum and returns its length.
func (t *Tally) index(sum *Sum) (size int64) {
	e := Entry{Offset: ltx.HeaderSize}
	var rec [3 * binary.MaxVarintLen64]byte
	for _, f := range t.frames {
		e.Pgno, e.Size = f.pgno, int64(f.size&^framedBit)
		b := appendEntry(rec[:0], e)
		sum.bytes(b)
		e.Offset, size = e.Offset+e.Size, size+int64(len(b))
	}
	sum.bytes([]byte{0})
	return size + 1
}

// header is what the checksum takes in of the frame beside its page.
func (f noted) header() []byte {
	b := make([]byte, sizedHead)
	binary.BigEndian.PutUint32(b, f.pgno)
	if f.size&framedBit != 0 {
		return b[:ltx.PageHeaderSize]
	}
	binary.BigEndian.PutUint16(b[4:], ltx.PageHeaderFlagSize)
	binary.BigEndian.PutUint32(b[ltx.PageHeaderSize:], f.size-sizedHead)
	return b
}
