package replica

import (
	"errors"
	"io"

	"github.com/ltxstream/ltxstream/internal/pagesum"
	"github.com/superfly/ltx"
)

// changes is what one LTX file does to the database, read once and verified.
// The buffers are used again for the next file.
type changes struct {
	header ltx.Header
	post   ltx.Checksum
	full   bool           // holds every page
	pages  []pagesum.Page // in page order
	images []byte         // the pages themselves, in that order
	whole  bool           // images holds them all; else the file is read again
	page   []byte         // room for one
}

// keepLimit is how many bytes of pages are kept in memory; a larger file is
// decoded twice.
const keepLimit = 8 << 20

// pos returns the position after the file.
func (c *changes) pos() ltx.Pos {
	return ltx.Pos{TXID: c.header.MaxTXID, PostApplyChecksum: c.post}
}

func (c *changes) image(i int) []byte {
	n := int(c.header.PageSize)
	return c.images[i*n : (i+1)*n]
}

// read decodes and verifies the whole file behind the header that d has read.
// With a sink every page goes there; without, into images as far as they fit.
func (c *changes) read(d *decoder, sink func(pgno uint32, page []byte) error) error {
	c.header = d.header
	c.pages, c.images, c.whole = c.pages[:0], c.images[:0], sink == nil
	if cap(c.page) < int(c.header.PageSize) {
		c.page = make([]byte, 65536)
	}
	for {
		page := c.room()
		p, err := d.next(page)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := c.checkPage(p.Pgno, page); err != nil {
			return err
		}
		c.pages = append(c.pages, p)
		if sink != nil {
			if err := sink(p.Pgno, page); err != nil {
				return err
			}
		}
	}
	if c.whole {
		c.images = c.images[:len(c.pages)*int(c.header.PageSize)]
	}
	t, err := d.finish()
	c.post = t.PostApplyChecksum
	return err
}

// room returns where the next page goes.
func (c *changes) room() []byte {
	n := int(c.header.PageSize)
	if c.whole && len(c.images)+n > keepLimit {
		c.whole, c.images = false, c.images[:0]
	}
	if !c.whole {
		return c.page[:n]
	}
	at := len(c.images)
	if cap(c.images) < at+n {
		c.images = append(make([]byte, 0, max(2*at, at+n, 64<<10)), c.images...)
	}
	c.images = c.images[:at+n]
	return c.images[at:]
}

// checkPage refuses a first page that would take the replica out of WAL mode.
func (c *changes) checkPage(pgno uint32, page []byte) error {
	if pgno == 1 && (page[18] != 2 || page[19] != 2 || pageSizeIn(page) != c.header.PageSize) {
		return damaged("page 1 is not that of a database in WAL mode with pages of %d bytes", c.header.PageSize)
	}
	return nil
}

// checkHeader refuses what cannot be applied whatever the pages are.
func (c *changes) checkHeader(h ltx.Header) error {
	switch {
	case h.NoChecksum():
		return damaged("file carries no database checksum")
	case h.Commit == 0:
		return damaged("file leaves no database")
	}
	return nil
}

// checkHoles verifies that every page beyond old pages, up to the new end, is
// in the file. The pages are in order, none twice, none beyond the end, none
// the lock page: counting is enough.
func (c *changes) checkHoles(old uint32) error {
	end := c.header.Commit
	if end <= old {
		return nil
	}
	want := end - old
	if lock := c.header.LockPgno(); lock > old && lock <= end {
		want--
	}
	var got uint32
	for i := len(c.pages) - 1; i >= 0 && c.pages[i].Pgno > old; i-- {
		got++
	}
	if got != want {
		return damaged("%d of the %d pages after page %d are missing", want-got, want, old)
	}
	return nil
}

// sum returns the rolling checksum of the pages of a full file.
func (c *changes) sum() ltx.Checksum {
	var x ltx.Checksum
	for _, p := range c.pages {
		x ^= p.Sum
	}
	return ltx.ChecksumFlag | x
}
