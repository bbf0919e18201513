package ltxfile

import (
	"github.com/superfly/ltx"
)

// ParseHeader reads the header that b begins with. Errors wrap ErrDamaged.
func ParseHeader(b []byte) (hdr ltx.Header, err error) {
	if err = hdr.UnmarshalBinary(b); err == nil {
		err = hdr.Validate()
	}
	if err != nil {
		return hdr, damaged("read header: %w", err)
	}
	return hdr, nil
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
