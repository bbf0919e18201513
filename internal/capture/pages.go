package capture

import (
	"iter"
	"sync"

	"github.com/ltxstream/ltxstream/internal/pagesum"
	"github.com/ltxstream/ltxstream/internal/wal"
)

// summed is one page with its checksum. The data is valid until the next one.
type summed struct {
	sum  pagesum.Page
	data []byte
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
			if !yield(summed{pagesum.Page{Pgno: ch.pgno, Sum: pagesum.Of(ch.pgno, b)}, b}, nil) {
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
	sums []pagesum.Page
	data []byte
	err  error
}

// read fills s with pages.
func (s *stretch) read(db *wal.DB, c *changes, pages []change) {
	size := int(c.pageSize)
	s.sums = s.sums[:0]
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
		s.sums = append(s.sums, pagesum.Page{Pgno: ch.pgno, Sum: pagesum.Of(ch.pgno, room)})
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
			for i, sum := range r.sums {
				if !yield(summed{sum, r.data[i*size : (i+1)*size]}, nil) {
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
