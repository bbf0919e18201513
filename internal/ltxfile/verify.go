package ltxfile

import (
	"io"

	"github.com/superfly/ltx"
)

// Verify reads a whole file: its structure, every page, page index and checksum;
// of a file of all pages also that they are there and add up to the checksum of
// the database, where it bears one. Errors about the content wrap ErrDamaged.
func Verify(r io.Reader) (hdr ltx.Header, t ltx.Trailer, err error) {
	s, err := NewScanner(r)
	if err != nil {
		return hdr, t, err
	}
	hdr = s.Header()
	sum := NewSum(hdr.PageSize)
	sum.Bytes(s.HeaderBytes())
	shift, page := ShiftOf(hdr.PageSize), make([]byte, hdr.PageSize)
	whole, n := ltx.Checksum(ltx.ChecksumFlag), int64(0)
	for {
		f, err := s.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return hdr, t, err
		}
		if err := f.Decode(page); err != nil {
			return hdr, t, err
		}
		crc := DataCRC(page)
		sum.Page(f.Header(), crc)
		whole = ltx.ChecksumFlag | (whole ^ PageSum(shift, f.Pgno, crc))
		n++
	}
	if t, err = s.Finish(sum); err != nil {
		return hdr, t, err
	}
	if !hdr.IsSnapshot() {
		return hdr, t, nil
	}
	if want := PageCount(hdr); n != want {
		return hdr, t, damaged("%d of %d pages are there", n, want)
	}
	if !hdr.NoChecksum() && whole != t.PostApplyChecksum {
		return hdr, t, damaged("its pages add up to %s, its trailer says %s", whole, t.PostApplyChecksum)
	}
	return hdr, t, nil
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
