package ltxfile

import (
	"encoding/binary"
	"hash/crc64"

	"github.com/superfly/ltx"
)

var isoTable = crc64.MakeTable(crc64.ISO)

// Sum is the running checksum of an LTX file: over the frame headers and the
// decoded pages. Each page's own CRC, computed once and anywhere, is added to
// it.
type Sum struct {
	crc   uint64
	shift *Shift
}

// NewSum returns the checksum of nothing yet, of a file with such pages.
func NewSum(pageSize uint32) Sum { return Sum{shift: ShiftOf(pageSize)} }

// Bytes adds b.
func (s *Sum) Bytes(b []byte) { s.crc = crc64.Update(s.crc, isoTable, b) }

// Page adds the ten bytes of a frame's header and the page whose [DataCRC] is
// given.
func (s *Sum) Page(frameHeader []byte, dataCRC uint64) {
	s.Bytes(frameHeader)
	s.crc = dataCRC ^ s.shift.Apply(s.crc)
}

// Checksum is the sum in LTX's form.
func (s *Sum) Checksum() ltx.Checksum { return ltx.ChecksumFlag | ltx.Checksum(s.crc) }

// DataCRC is the CRC-64/ISO of a page's bytes alone.
func DataCRC(page []byte) uint64 { return crc64.Update(0, isoTable, page) }

// PageSum is the checksum of a page in a database (ltx.ChecksumPage), of its
// number and its DataCRC.
func PageSum(shift *Shift, pgno uint32, dataCRC uint64) ltx.Checksum {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], pgno)
	return ltx.ChecksumFlag | ltx.Checksum(dataCRC^shift.Apply(crc64.Update(0, isoTable, b[:])))
}
