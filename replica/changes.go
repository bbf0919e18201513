package replica

import (
	"io"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/ltxfile"
	"github.com/ltxstream/ltxstream/internal/pagesum"
)

// changes is what one LTX file does to the database, read once and verified.
// The buffers are used again for the next file.
type changes struct {
	header ltx.Header
	post   ltx.Checksum
	full   bool           // holds every page
	pages  []pagesum.Page // in page order
	images []byte         // the pages themselves, in that order
	whole  bool           // images holds them all; else a sink took them
	page   []byte         // room for one
}

// keepLimit is how many bytes of pages are kept in memory.
const keepLimit = 8 << 20

// pos returns the position after the file.
func (c *changes) pos() ltx.Pos {
	return ltx.Pos{TXID: c.header.MaxTXID, PostApplyChecksum: c.post}
}

func (c *changes) image(i int) []byte {
	n := int(c.header.PageSize)
	return c.images[i*n : (i+1)*n]
}

// pageSink takes the pages of a file in their order, i from 0, each valid until it
// returns.
type pageSink func(i int, page []byte) error

// read decodes and verifies the whole file whose header scan has read. Its pages
// are kept in images as long as they fit, if keep is set; what does not fit, or all
// of it, goes to sink as it is read, before the file is known to be whole.
func (c *changes) read(scan *ltxfile.Scanner, keep bool, sink pageSink) error {
	c.header = scan.Header()
	c.pages, c.images, c.whole = c.pages[:0], c.images[:0], keep
	if cap(c.page) < int(c.header.PageSize) {
		c.page = make([]byte, 65536)
	}
	sum, shift := scan.Sum(), ltxfile.ShiftOf(c.header.PageSize)
	for {
		f, err := scan.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		crc, err := c.add(f, shift, sink)
		if err != nil {
			return err
		}
		sum.Page(f, crc)
	}
	t, err := scan.Finish(sum)
	c.post = t.PostApplyChecksum
	return err
}

// add decodes the next page and returns its ltxfile.DataCRC.
func (c *changes) add(f ltxfile.Frame, shift *ltxfile.Shift, sink pageSink) (crc uint64, err error) {
	page, err := c.room(sink)
	if err != nil {
		return 0, err
	}
	if err := f.Decode(page); err != nil {
		return 0, err
	}
	if err := c.checkPage(f.Pgno, page); err != nil {
		return 0, err
	}
	crc = ltxfile.DataCRC(page)
	c.pages = append(c.pages, pagesum.Page{Pgno: f.Pgno, Sum: ltxfile.PageSum(shift, f.Pgno, crc)})
	if !c.whole {
		err = sink(len(c.pages)-1, page)
	}
	return crc, err
}

// room returns where the next page goes. What was kept goes to sink once there is
// too much of it.
func (c *changes) room(sink pageSink) ([]byte, error) {
	n := int(c.header.PageSize)
	if c.whole && len(c.images)+n > keepLimit {
		for i := range c.pages {
			if err := sink(i, c.image(i)); err != nil {
				return nil, err
			}
		}
		c.whole, c.images = false, c.images[:0]
	}
	if !c.whole {
		return c.page[:n], nil
	}
	at := len(c.images)
	if cap(c.images) < at+n {
		c.images = append(make([]byte, 0, max(2*at, at+n, 64<<10)), c.images...)
	}
	c.images = c.images[:at+n]
	return c.images[at:], nil
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
	if h.Commit == 0 {
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
