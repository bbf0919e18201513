package ltxfile

import (
	"io"

	"github.com/superfly/ltx"
)

// Content is what a whole file holds.
type Content struct {
	Header  ltx.Header
	Trailer ltx.Trailer
	Size    int64        // of the file, bytes
	Pages   int64        // in it
	Sum     ltx.Checksum // of these pages, as if they were the database
}

// Whole returns an error unless all pages of the database are there, and add up to
// its checksum where the file bears one.
func (c Content) Whole() error {
	if want := PageCount(c.Header); c.Pages != want {
		return damaged("%d of %d pages are there", c.Pages, want)
	}
	if post := c.Trailer.PostApplyChecksum; !c.Header.NoChecksum() && c.Sum != post {
		return damaged("its pages add up to %s, its trailer says %s", c.Sum, post)
	}
	return nil
}

// Verify reads a whole file: its structure, every page, page index and checksum;
// of a file that begins at TXID 1 also that it is [Content.Whole]. Errors about the
// content wrap ErrDamaged.
func Verify(r io.Reader) (Content, error) { return new(Verifier).Verify(r) }

// Verifier is Verify with buffers that are kept from file to file. The zero
// Verifier is ready. Not for concurrent use.
type Verifier struct {
	scan Scanner
	page []byte
}

// Verify is the function [Verify].
func (v *Verifier) Verify(r io.Reader) (c Content, err error) {
	if err := v.scan.Reset(r); err != nil {
		return c, err
	}
	c.Header = v.scan.Header()
	sum, err := v.pages(&c)
	if err != nil {
		return c, err
	}
	if c.Trailer, err = v.scan.Finish(sum); err != nil {
		return c, err
	}
	c.Size = v.scan.at()
	if c.Header.IsSnapshot() {
		return c, c.Whole()
	}
	return c, nil
}

// pages decodes all pages, and returns the checksum of the file behind the last
// one.
func (v *Verifier) pages(c *Content) (Sum, error) {
	sum, shift := v.scan.Sum(), ShiftOf(c.Header.PageSize)
	if len(v.page) != int(c.Header.PageSize) {
		v.page = make([]byte, c.Header.PageSize)
	}
	c.Sum = ltx.ChecksumFlag
	for {
		f, err := v.scan.Next()
		if err == io.EOF {
			return sum, nil
		}
		if err != nil {
			return sum, err
		}
		if err := f.Decode(v.page); err != nil {
			return sum, err
		}
		crc := DataCRC(v.page)
		sum.Page(f, crc)
		c.Sum = ltx.ChecksumFlag | (c.Sum ^ PageSum(shift, f.Pgno, crc))
		c.Pages++
	}
}
