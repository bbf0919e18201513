package pagesum

import (
	"encoding/binary"
	"hash/crc64"

	"github.com/superfly/ltx"
)

var isoTable = crc64.MakeTable(crc64.ISO)

// Of returns the checksum of one page: ltx.ChecksumPage without its
// allocations.
func Of(pgno uint32, page []byte) ltx.Checksum {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], pgno)
	return ltx.ChecksumFlag | ltx.Checksum(crc64.Update(crc64.Update(0, isoTable, b[:]), isoTable, page))
}

// Page is the checksum of one page.
type Page struct {
	Pgno uint32
	Sum  ltx.Checksum
}
