package capture

import (
	"fmt"
	"slices"

	"github.com/ltxstream/ltxstream/internal/wal"
)

// Bounds of one group, in bytes of WAL. A group that is small is read once and
// kept in memory; a larger one is verified in chunks and its pages are read
// again; a single transaction may be larger than any bound.
const (
	smallGroup = 4 << 20
	largeGroup = 256 << 20 // a backlog has the same pages again and again
	readChunk  = 1 << 20
	fewFrames  = 16 // read at a time where a single transaction is wanted
)

// groupReader reads committed frames behind a place in the WAL and makes
// changes of them. It keeps its buffers from group to group.
type groupReader struct {
	buf   []byte
	pages []uint64 // pgno<<32 | frame
}

// read verifies the frames (from.Frame, last] and returns what they change, as
// one group: up to the first commit at or beyond limit bytes (0: the first
// commit of all). least is the smallest size, in pages, that the database had
// on the way. An error that wraps wal.ErrChain says that the WAL is not the one
// that from belongs to. An error of ease, which is called between two reads, ends it.
func (r *groupReader) read(db *wal.DB, from wal.Chain, last uint32, limit int64, ease func() error) (c *changes, least uint32, err error) {
	c = &changes{pageSize: from.PageSize, start: from.Frame + 1}
	r.buf, r.pages = r.buf[:0], r.pages[:0]
	s := scanState{chain: from, least: ^uint32(0)}
	small := int64(last-from.Frame)*int64(from.FrameSize()) <= smallGroup
	chunk := uint32(max(1, readChunk/from.FrameSize()))
	switch {
	case small && limit == 0:
		chunk = fewFrames
	case small:
		chunk = last - from.Frame
	}
	for s.chain.Frame < last && !s.full(limit) {
		if !small {
			r.buf = r.buf[:0]
			if err := ease(); err != nil {
				return nil, 0, err
			}
		}
		if err := r.readFrames(db, &s, min(chunk, last-s.chain.Frame), limit); err != nil {
			return nil, 0, err
		}
	}
	if s.commits == 0 {
		return nil, 0, fmt.Errorf("frames %d to %d hold no commit: %w", from.Frame+1, last, wal.ErrChain)
	}
	c.end, c.count, c.commits = s.committed, s.count, s.commits
	if small {
		c.group = r.buf
	}
	c.pages = changed(r.pages, c, from)
	return c, s.least, nil
}

// scanState is how far a group has been verified.
type scanState struct {
	chain     wal.Chain
	committed wal.Chain // behind the last commit
	bytes     int64
	commits   int
	count     uint32
	least     uint32
}

func (s *scanState) full(limit int64) bool {
	return s.commits > 0 && s.chain.Frame == s.committed.Frame && s.bytes >= limit
}

func (r *groupReader) readFrames(db *wal.DB, s *scanState, n uint32, limit int64) error {
	size, at := s.chain.FrameSize(), len(r.buf)
	r.buf = slices.Grow(r.buf, int(n)*size)[:at+int(n)*size]
	if _, err := db.ReadWAL(r.buf[at:], wal.FrameOffset(s.chain.Frame+1, s.chain.PageSize)); err != nil {
		return fmt.Errorf("read wal frames %d to %d (%w): %w", s.chain.Frame+1, s.chain.Frame+n, err, wal.ErrChain)
	}
	for b := r.buf[at:]; len(b) > 0 && !s.full(limit); b = b[size:] {
		h, err := s.chain.Next(b)
		if err != nil {
			return err
		}
		s.bytes += int64(size)
		r.pages = append(r.pages, uint64(h.Pgno)<<32|uint64(s.chain.Frame))
		if h.Commit != 0 {
			s.committed, s.count = s.chain, h.Commit
			s.least = min(s.least, h.Commit)
			s.commits++
		}
	}
	return nil
}

// changed returns where the newest content is of each page among pages (pgno<<32
// | frame): in c.group, which begins behind from, or else in the WAL.
func changed(pages []uint64, c *changes, from wal.Chain) []change {
	lock, frameSize := wal.LockPgno(c.pageSize), int64(from.FrameSize())
	var out []change
	for _, e := range wal.LastFrames(pages) {
		pgno, frame := uint32(e>>32), uint32(e)
		if pgno > c.count || pgno == lock {
			continue
		}
		ch := change{pgno, fromWAL, wal.FrameOffset(frame, c.pageSize) + wal.FrameHeaderSize}
		if c.group != nil {
			ch.src, ch.off = fromGroup, int64(frame-from.Frame-1)*frameSize+wal.FrameHeaderSize
		}
		out = append(out, ch)
	}
	return out
}

// release lets go of large buffers: an idle database keeps none.
func (r *groupReader) release() { r.buf, r.pages = nil, nil }
