package replica

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/ltxstream/ltxstream/internal/pagesum"
	"github.com/ltxstream/ltxstream/internal/wal"
	"github.com/superfly/ltx"
)

const scanChunk = 1 << 20

// rebuild fills the page checksums from the database as readers see it, the
// file overlaid by the WAL, and returns the rolling checksum. Nobody else can
// commit meanwhile: WRITE is held.
func (r *Replica) rebuild(ctx context.Context, s dbState) (ltx.Checksum, error) {
	t := r.apply.table
	t.Reset(s.pageSize)
	scan := scanner{db: r.live.db, state: s, buf: make([]byte, max(scanChunk, int(s.pageSize)))}
	var err error
	if scan.overlay, err = r.live.db.Pages(0, s.MaxFrame); err != nil {
		return 0, err
	}
	sums := make([]pagesum.Page, 0, len(scan.buf)/int(s.pageSize))
	total := ltx.ChecksumFlag
	for first := uint32(1); first <= s.pages; first += uint32(len(sums)) {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		if sums, err = scan.sums(first, sums[:0]); err != nil {
			return 0, fmt.Errorf("read database: %w", err)
		}
		for _, p := range sums {
			total = ltx.ChecksumFlag | (total ^ p.Sum)
		}
		last := first + uint32(len(sums)) - 1
		if err := t.Update(ltx.Pos{PostApplyChecksum: total}, last, sums); err != nil {
			return 0, err
		}
	}
	return total, nil
}

// scanner reads a database in page order.
type scanner struct {
	db      *wal.DB
	state   dbState
	overlay []uint64 // pgno<<32 | frame of what lies in the WAL, by page
	buf     []byte
}

// sums appends the checksums of the pages from first on, as many as the buffer
// holds. The lock page has none.
func (s *scanner) sums(first uint32, sums []pagesum.Page) ([]pagesum.Page, error) {
	size := int(s.state.pageSize)
	n := min(len(s.buf)/size, int(s.state.pages-first)+1)
	got, err := s.db.ReadFile(s.buf[:n*size], int64(first-1)*int64(size))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	clear(s.buf[got : n*size]) // beyond the end of the file
	for i := range n {
		pgno, page := first+uint32(i), s.buf[i*size:(i+1)*size]
		if err := s.over(pgno, page); err != nil {
			return nil, err
		}
		p := pagesum.Page{Pgno: pgno}
		if pgno != wal.LockPgno(s.state.pageSize) {
			p.Sum = pagesum.Of(pgno, page)
		}
		sums = append(sums, p)
	}
	return sums, nil
}

// over replaces page by its newest frame, if it has one.
func (s *scanner) over(pgno uint32, page []byte) error {
	for len(s.overlay) > 0 && uint32(s.overlay[0]>>32) < pgno {
		s.overlay = s.overlay[1:]
	}
	if len(s.overlay) == 0 || uint32(s.overlay[0]>>32) != pgno {
		return nil
	}
	return s.db.ReadPage(uint32(s.overlay[0]), s.state.pageSize, page)
}
