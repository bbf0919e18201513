package generations

import (
	"errors"
	"fmt"
	"io"

	"github.com/ltxstream/ltxstream/internal/wal"
	"github.com/ltxstream/ltxstream/objstore/levels"
)

// walReader reads the WAL of one index: its segments, one behind the other. One
// that does not begin where the one before ended is a [GapError].
type walReader struct {
	*contents
	generation string
	segments   []Segment
	opened     int   // segments so far
	offset     int64 // in the WAL
}

func (r *walReader) Read(p []byte) (int, error) {
	for r.opened > 0 {
		n, err := r.contents.Read(p)
		r.offset += int64(n)
		if err != io.EOF {
			return n, err
		}
		if r.opened == len(r.segments) {
			return n, io.EOF
		}
		if err := r.open(); err != nil || n > 0 {
			return n, err
		}
	}
	return 0, io.EOF
}

// open goes to the next segment.
func (r *walReader) open() error {
	s := r.segments[r.opened]
	if s.Offset < r.offset {
		return &levels.DamageError{Key: s.Key, Err: fmt.Errorf("the segment before it reaches to offset %08x", r.offset)}
	}
	if s.Offset > r.offset {
		return &GapError{Generation: r.generation, Index: s.Index, Offset: r.offset, Found: s}
	}
	r.contents.open(s.Object)
	r.opened++
	return nil
}

// at is the segment in which an offset lies.
func (r *walReader) at(offset int64) (n int) {
	for n+1 < len(r.segments) && r.segments[n+1].Offset <= offset {
		n++
	}
	return n
}

// tail is what lies behind the last commit of a WAL.
type tail struct {
	offset int64 // behind the last commit
	// unfit is why the rest, from a frame in segment on, is not part of the WAL;
	// nil: all of it is.
	unfit   error
	segment int
	open    bool // frames without a commit follow
}

// readAtOnce is how much is read between two writes or looks at frames, bytes.
const readAtOnce = 1 << 20

// scan reads the WAL and hands each frame, with its header, to each: as far as
// salts and checksums prove them to be what SQLite wrote one after the other.
// pageSize is that of the database, 0: not known.
func (r *walReader) scan(pageSize uint32, each func(frame []byte, h wal.FrameHeader) error) (tail, error) {
	chain, err := r.begin(pageSize)
	if err != nil {
		return tail{}, err
	}
	t := tail{offset: wal.FileHeaderSize}
	size := chain.FrameSize()
	buf := make([]byte, max(1, readAtOnce/size)*size)
	for at := t.offset; ; {
		n, err := io.ReadFull(r, buf)
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return t, err
		}
		for frames := buf[:n]; len(frames) > 0; frames = frames[size:] {
			h, bad := wal.FrameHeader{}, errCutFrame
			if len(frames) >= size {
				h, bad = chain.Next(frames)
			}
			if bad != nil {
				t.unfit, t.segment = bad, r.at(at)
				return t, nil
			}
			if err := each(frames[:size], h); err != nil {
				return t, err
			}
			at += int64(size)
			if t.open = h.Commit == 0; !t.open {
				t.offset = at
			}
		}
		if err != nil {
			return t, nil
		}
	}
}

var errCutFrame = errors.New("its last frame is cut off")

// begin reads the header.
func (r *walReader) begin(pageSize uint32) (wal.Chain, error) {
	if err := r.open(); err != nil {
		return wal.Chain{}, err
	}
	head := make([]byte, wal.FileHeaderSize)
	if n, err := io.ReadFull(r, head); err == io.EOF || err == io.ErrUnexpectedEOF {
		return wal.Chain{}, r.damage(0, fmt.Errorf("%d bytes are no WAL", n))
	} else if err != nil {
		return wal.Chain{}, err
	}
	h, sum, err := wal.ParseFileHeader(head)
	if err == nil && pageSize != 0 && h.PageSize != pageSize {
		err = fmt.Errorf("its pages are of %d bytes, those of the database of %d", h.PageSize, pageSize)
	}
	if err != nil {
		return wal.Chain{}, r.damage(0, err)
	}
	return wal.StartChain(h, sum), nil
}

func (r *walReader) damage(segment int, err error) error {
	return &levels.DamageError{Key: r.segments[segment].Key, Err: err}
}

// check refuses a WAL that SQLite did not leave so: one that breaks off, or ends
// inside a transaction, although more follows: next, the segment behind it in the
// generation (nil: none). At the very end of a generation such frames are no part
// of the database, for SQLite neither.
func (r *walReader) check(t tail, next *Segment) error {
	last := len(r.segments) - 1
	switch {
	case t.unfit != nil && (next != nil || t.segment < last):
		return r.damage(t.segment, t.unfit)
	case t.open && next != nil && next.Index > r.segments[last].Index:
		return r.damage(last, fmt.Errorf("the WAL ends inside a transaction that begins at offset %08x: a segment behind it is missing", t.offset))
	}
	return nil
}
