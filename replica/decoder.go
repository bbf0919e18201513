package replica

import (
	"encoding/binary"
	"errors"
	"hash/crc64"
	"io"

	"github.com/pierrec/lz4/v4"
	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/ltxfile"
	"github.com/ltxstream/ltxstream/internal/pagesum"
)

// decoder reads one LTX file page by page through a small window and verifies
// it whole: order and bounds of the pages, the page index byte by byte, the
// file's checksum. It does what ltx.Decoder does without an allocation per
// page, and refuses page frames without a size. Errors about the content wrap ErrDamaged.
type decoder struct {
	sr     *io.SectionReader
	buf    []byte // window; buf[r:w] is unread
	r, w   int
	off    int64 // offset in the file of buf[w]
	header ltx.Header
	shift  *ltxfile.Shift // of a page

	hash  uint64 // of the file so far
	index uint64 // of the page index that the pages so far ask for
	size  int64  // its length in bytes
	prev  uint32
	rec   [3 * binary.MaxVarintLen64]byte
}

const windowSize = 256 << 10 // more than one page frame of any size

var isoTable = crc64.MakeTable(crc64.ISO)

// start begins with a file and reads its header.
func (d *decoder) start(sr *io.SectionReader) error {
	if d.buf == nil {
		d.buf = make([]byte, windowSize)
	}
	*d = decoder{sr: sr, buf: d.buf}
	b, err := d.peek(ltx.HeaderSize)
	if err != nil {
		return err
	}
	if err := d.header.UnmarshalBinary(b); err != nil {
		return damaged("read header: %w", err)
	}
	if err := d.header.Validate(); err != nil {
		return damaged("read header: %w", err)
	}
	d.take(b)
	d.shift = ltxfile.ShiftOf(d.header.PageSize)
	return nil
}

// peek returns the next n bytes, unread still, valid until the next call.
func (d *decoder) peek(n int) ([]byte, error) {
	if d.w-d.r < n {
		if err := d.fill(n); err != nil {
			return nil, err
		}
	}
	return d.buf[d.r : d.r+n], nil
}

func (d *decoder) fill(n int) error {
	d.w = copy(d.buf, d.buf[d.r:d.w])
	d.r = 0
	for d.w < n {
		m, err := d.sr.ReadAt(d.buf[d.w:], d.off)
		d.w += m
		d.off += int64(m)
		if d.w >= n {
			return nil
		}
		if errors.Is(err, io.EOF) || err == nil && m == 0 {
			return damaged("read at byte %d of %d: %w", d.off, d.sr.Size(), io.ErrUnexpectedEOF)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// take hashes b, which peek returned, and moves past it.
func (d *decoder) take(b []byte) {
	d.hash = crc64.Update(d.hash, isoTable, b)
	d.r += len(b)
}

// at returns the offset in the file of the next unread byte.
func (d *decoder) at() int64 { return d.off - int64(d.w-d.r) }

const pageFrameHeader = ltx.PageHeaderSize + 4 // page number, flags, size

// next decodes the next page into page, which is as long as a page, and returns
// its number and checksum. io.EOF: there is none left; finish is next.
func (d *decoder) next(page []byte) (p pagesum.Page, err error) {
	b, err := d.peek(ltx.PageHeaderSize)
	if err != nil {
		return p, err
	}
	pgno, flags := binary.BigEndian.Uint32(b), binary.BigEndian.Uint16(b[4:])
	if pgno == 0 && flags == 0 {
		d.take(b)
		return p, io.EOF
	}
	if flags != ltx.PageHeaderFlagSize || pgno <= d.prev || pgno > d.header.Commit || pgno == d.header.LockPgno() {
		return p, damaged("page %d with flags %#x after page %d of %d", pgno, flags, d.prev, d.header.Commit)
	}
	if err := d.unpack(pgno, page); err != nil {
		return p, err
	}
	d.prev = pgno
	return pagesum.Page{Pgno: pgno, Sum: d.hashPage(pgno, page)}, nil
}

// hashPage returns the checksum of the page (see pagesum.Of), and adds the page
// to the hash of the file.
func (d *decoder) hashPage(pgno uint32, page []byte) ltx.Checksum {
	number := crc64.Update(0, isoTable, binary.BigEndian.AppendUint32(d.rec[:0], pgno))
	sum := crc64.Update(number, isoTable, page)
	d.hash = sum ^ d.shift.Apply(d.hash^number)
	return ltx.ChecksumFlag | ltx.Checksum(sum)
}

func (d *decoder) unpack(pgno uint32, page []byte) error {
	b, err := d.peek(pageFrameHeader)
	if err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(b[ltx.PageHeaderSize:])
	if n > uint32(lz4.CompressBlockBound(len(page))) {
		return damaged("page %d: %d compressed bytes", pgno, n)
	}
	at, size := d.at(), pageFrameHeader+int(n)
	if b, err = d.peek(size); err != nil {
		return err
	}
	m, err := lz4.UncompressBlock(b[pageFrameHeader:], page)
	if err != nil {
		return damaged("page %d: %w", pgno, err)
	}
	if m != len(page) {
		return damaged("page %d: %d bytes", pgno, m)
	}
	d.hash = crc64.Update(d.hash, isoTable, b[:pageFrameHeader])
	d.r += size
	rec := binary.AppendUvarint(d.rec[:0], uint64(pgno))
	rec = binary.AppendUvarint(rec, uint64(at))
	d.expect(binary.AppendUvarint(rec, uint64(size)))
	return nil
}

// expect adds b to what the page index must be.
func (d *decoder) expect(b []byte) {
	d.index = crc64.Update(d.index, isoTable, b)
	d.size += int64(len(b))
}

// finish verifies the rest of the file and returns its trailer.
func (d *decoder) finish() (t ltx.Trailer, err error) {
	d.expect([]byte{0})
	if err := d.checkIndex(); err != nil {
		return t, err
	}
	b, err := d.peek(8)
	if err != nil {
		return t, err
	}
	if n := binary.BigEndian.Uint64(b); n != uint64(d.size) {
		return t, damaged("page index of %d bytes, want %d", n, d.size)
	}
	d.take(b)
	if b, err = d.peek(ltx.TrailerSize); err != nil {
		return t, err
	}
	if err := t.UnmarshalBinary(b); err != nil {
		return t, damaged("read trailer: %w", err)
	}
	d.take(b[:ltx.TrailerChecksumOffset])
	d.r += ltx.ChecksumSize
	return t, d.checkTrailer(t)
}

func (d *decoder) checkIndex() error {
	var sum uint64
	for left := d.size; left > 0; {
		b, err := d.peek(int(min(left, windowSize)))
		if err != nil {
			return err
		}
		sum = crc64.Update(sum, isoTable, b)
		d.take(b)
		left -= int64(len(b))
	}
	if sum != d.index {
		return damaged("page index does not match the pages")
	}
	return nil
}

func (d *decoder) checkTrailer(t ltx.Trailer) error {
	if err := t.Validate(d.header); err != nil {
		return damaged("read trailer: %w", err)
	}
	if got := ltx.ChecksumFlag | ltx.Checksum(d.hash); got != t.FileChecksum {
		return damaged("file checksum %s, want %s", got, t.FileChecksum)
	}
	if d.at() != d.sr.Size() {
		return damaged("%d bytes after the trailer", d.sr.Size()-d.at())
	}
	return nil
}
