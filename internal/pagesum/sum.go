package pagesum

import (
	"encoding/binary"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/crc64iso"
)

// Of returns the checksum of one page: ltx.ChecksumPage without its
// allocations.
func Of(pgno uint32, page []byte) ltx.Checksum {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], pgno)
	return ltx.ChecksumFlag | ltx.Checksum(crc64iso.Update(crc64iso.Update(0, b[:]), page))
}

// Page is the checksum of one page.
type Page struct {
	Pgno uint32
	Sum  ltx.Checksum
}
