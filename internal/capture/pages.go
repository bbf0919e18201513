package capture

import (
	"iter"
	"sync"

	"github.com/ltxstream/ltxstream/internal/ltxfile"
	"github.com/ltxstream/ltxstream/internal/pagesum"
	"github.com/ltxstream/ltxstream/internal/wal"
)

// summed is one page with its checksum, and the CRC of its bytes alone. The data is
// valid until the next one.
type summed struct {
	sum  pagesum.Page
	crc  uint64
	data []byte
}

func sumUp(pgno uint32, data []byte) summed {
	crc := ltxfile.DataCRC(data)
	return summed{pagesum.Page{Pgno: pgno, Sum: ltxfile.PageSum(ltxfile.ShiftOf(uint32(len(data))), pgno, crc)}, crc, data}
}

// pages returns the pages of c with their checksums. After an error there are no
// more.
func (e *encoder) pages(db *wal.DB, c *changes) iter.Seq2[summed, error] {
	if int64(len(c.pages))*int64(c.pageSize) > inMemory {
		return readAhead(db, c)
	}
	return func(yield func(summed, error) bool) {
		if len(e.page) < int(c.pageSize) {
			e.page = make([]byte, c.pageSize)
		}
		for _, ch := range c.pages {
			b, err := c.page(db, ch, e.page)
			if err != nil {
				yield(summed{}, err)
				return
			}
			if !yield(sumUp(ch.pgno, b), nil) {
				return
			}
		}
	}
}

// aheadBytes is how much is read at a time by another goroutine than the one that
// compresses: for a large file each has a core.
const aheadBytes = 512 << 10

// stretch is pages in a row.
type stretch struct {
	pages []summed
	data  []byte
	err   error
}

// read fills s with pages.
func (s *stretch) read(db *wal.DB, c *changes, pages []change) {
	size := int(c.pageSize)
	s.pages = s.pages[:0]
	for i, ch := range pages {
		room := s.data[i*size : (i+1)*size]
		b, err := c.page(db, ch, room)
		if err != nil {
			s.err = err
			return
		}
		if &b[0] != &room[0] {
			copy(room, b)
		}
		s.pages = append(s.pages, sumUp(ch.pgno, room))
	}
}

// readAhead is pages, read and summed by a goroutine of its own. It has ended when
// the loop has.
func readAhead(db *wal.DB, c *changes) iter.Seq2[summed, error] {
	return func(yield func(summed, error) bool) {
		size := int(c.pageSize)
		per := max(1, aheadBytes/size)
		full, free, stop := make(chan *stretch), make(chan *stretch, 2), make(chan struct{})
		for range cap(free) {
			free <- &stretch{data: make([]byte, per*size)}
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			defer close(full)
			for rest := c.pages; len(rest) > 0; rest = rest[min(per, len(rest)):] {
				var r *stretch
				select {
				case r = <-free:
				case <-stop:
					return
				}
				r.read(db, c, rest[:min(per, len(rest))])
				select {
				case full <- r:
				case <-stop:
					return
				}
				if r.err != nil {
					return
				}
			}
		})
		defer wg.Wait()
		defer close(stop)
		for r := range full {
			for _, p := range r.pages {
				if !yield(p, nil) {
					return
				}
			}
			if r.err != nil {
				yield(summed{}, r.err)
				return
			}
			free <- r
		}
	}
}
