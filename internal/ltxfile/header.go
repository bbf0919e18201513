package ltxfile

import (
	"github.com/superfly/ltx"
)

// tooOld is about files of an earlier format, under the same magic number.
const tooOld = "superfly/ltx before v0.5.0 wrote this file, as LiteFS does, and no release of Litestream did: the program that it came from reads it"

// compressedFlag was in a header's flags before v0.4.0.
const compressedFlag = 1

// ParseHeader reads the header that b begins with. Errors wrap ErrDamaged.
func ParseHeader(b []byte) (hdr ltx.Header, err error) {
	if err = hdr.UnmarshalBinary(b); err == nil {
		err = hdr.Validate()
	}
	switch {
	case err == nil:
		return hdr, nil
	case hdr.Flags == compressedFlag:
		return hdr, damaged("read header: %w: %s", err, tooOld)
	}
	return hdr, damaged("read header: %w", err)
}

// PageCount is how many pages a file of all of them holds: the lock page is
// never among them.
func PageCount(hdr ltx.Header) int64 {
	n := int64(hdr.Commit)
	if hdr.LockPgno() <= hdr.Commit {
		n--
	}
	return n
}
