package ltxfile

import (
	"encoding/binary"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/crc64iso"
)

// Sum is the running checksum of an LTX file: over the frame headers and the
// decoded pages. [Scanner.Sum] is its beginning. Each page's own CRC, computed once
// and anywhere, is added to it.
type Sum struct {
	crc   uint64
	shift *Shift
}

// newSum returns the checksum of nothing yet, of a file with such pages.
func newSum(pageSize uint32) Sum { return Sum{shift: ShiftOf(pageSize)} }

func (s *Sum) bytes(b []byte) { s.crc = crc64iso.Update(s.crc, b) }

// Page adds a frame, whose decoded page has the given [DataCRC].
func (s *Sum) Page(f Frame, dataCRC uint64) { s.page(f.header(), dataCRC) }

func (s *Sum) page(header []byte, dataCRC uint64) {
	s.bytes(header)
	s.crc = dataCRC ^ s.shift.Apply(s.crc)
}

// checksum is the sum in LTX's form.
func (s *Sum) checksum() ltx.Checksum { return ltx.ChecksumFlag | ltx.Checksum(s.crc) }

// DataCRC is the CRC-64/ISO of a page's bytes alone.
func DataCRC(page []byte) uint64 { return crc64iso.Update(0, page) }

// PageSum is the checksum of a page in a database (ltx.ChecksumPage), of its
// number and its DataCRC.
func PageSum(shift *Shift, pgno uint32, dataCRC uint64) ltx.Checksum {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], pgno)
	return ltx.ChecksumFlag | ltx.Checksum(dataCRC^shift.Apply(crc64iso.Update(0, b[:])))
}
