package capture

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/ltxstream/ltxstream/internal/wal"
)

// A batch is frames that were read and are in no LTX file yet: whole transactions
// of one generation, verified, in memory. Once they are there, they may leave the
// WAL.
type batch struct {
	from    wal.Chain // the place before the first
	chain   wal.Chain // the place behind the last: a commit
	closed  bool      // what is read next goes into another batch
	count   uint32    // pages of the database there
	least   uint32    // smallest size, in pages, on the way
	commits int
	buf     []byte   // frames
	pages   []uint64 // pgno<<32 | frame
}

// begin empties q, and makes from its place. It keeps the buffers.
func (q *batch) begin(from wal.Chain) {
	*q = batch{from: from, chain: from, least: ^uint32(0), buf: q.buf[:0], pages: q.pages[:0]}
}

// add reads the frames up to last, which is a commit. An error leaves what was
// held before; one that wraps wal.ErrChain says that the WAL is not, or not any
// more, the one that the place belongs to.
func (q *batch) add(db *wal.DB, last uint32) error {
	before := *q
	if err := q.read(db, int(last-q.chain.Frame)*q.chain.FrameSize()); err != nil {
		return err
	}
	q.extend()
	if got := q.chain.Frame; got != last {
		q.back(before)
		return fmt.Errorf("wal frames %d to %d: %w", got+1, last, wal.ErrChain)
	}
	return nil
}

// back undoes what was added since before was a copy of q.
func (q *batch) back(before batch) {
	before.buf, before.pages = q.buf[:len(before.buf)], q.pages[:len(before.pages)]
	*q = before
}

// addTail reads what is left behind the place of a generation that has ended: its
// frames stay in the file until those of later generations reach them. It
// returns how many transactions that were, by the rule of countCommits.
func (q *batch) addTail(db *wal.DB) (commits uint32, err error) {
	if q.chain.Frame == 0 {
		return 0, nil // the checksum that its frames begin with is not known
	}
	size, err := db.WALSize()
	if err != nil {
		return 0, err
	}
	rest := size - wal.FrameOffset(q.chain.Frame+1, q.chain.PageSize)
	n := min(rest, smallGroup) / int64(q.chain.FrameSize())
	if n <= 0 {
		return 0, nil
	}
	at := len(q.buf)
	if err := q.read(db, int(n)*q.chain.FrameSize()); err != nil {
		return 0, err
	}
	q.extend()
	return commitsOf(q.buf[at:], q.chain.FrameSize()), nil
}

// read appends the next size bytes of the WAL to buf.
func (q *batch) read(db *wal.DB, size int) error {
	at := len(q.buf)
	q.buf = slices.Grow(q.buf, size)[:at+size]
	_, err := db.ReadWAL(q.buf[at:], wal.FrameOffset(q.chain.Frame+1, q.chain.PageSize))
	if err == nil {
		return nil
	}
	q.buf = q.buf[:at]
	if errors.Is(err, io.EOF) { // truncated meanwhile
		err = errors.Join(err, wal.ErrChain)
	}
	return fmt.Errorf("read wal from frame %d: %w", q.chain.Frame+1, err)
}

// extend takes up the frames in buf that continue the chain, up to the last
// commit among them, and cuts off the others.
func (q *batch) extend() {
	reached := q.chain
	size := reached.FrameSize()
	pages := len(q.pages)
	for off := int(reached.Frame-q.from.Frame) * size; off < len(q.buf); off += size {
		h, err := reached.Next(q.buf[off : off+size])
		if err != nil {
			break
		}
		q.pages = append(q.pages, uint64(h.Pgno)<<32|uint64(reached.Frame))
		if h.Commit != 0 {
			q.chain, q.count, q.least = reached, h.Commit, min(q.least, h.Commit)
			q.commits++
			pages = len(q.pages)
		}
	}
	q.pages = q.pages[:pages]
	q.buf = q.buf[:int(q.chain.Frame-q.from.Frame)*size]
}

// changes returns what the transactions change. It is valid until q is used for
// others.
func (q *batch) changes() *changes {
	c := &changes{pageSize: q.from.PageSize, start: q.from.Frame + 1, end: q.chain, count: q.count, commits: q.commits, group: q.buf}
	c.pages = changed(q.pages, c, q.from)
	return c
}

// held is the batches, oldest first. The first one may be on its way into an LTX
// file; the last one, unless it is closed, takes what is read next.
type held struct {
	batches []*batch
	chain   wal.Chain // read up to here
	spare   []*batch  // for their buffers

	added uint64 // batches, ever
	gone  uint64 // … of which so many are captured
}

const maxSpare = 2 // one is written while the next one is filled

func (q *held) empty() bool { return len(q.batches) == 0 }

// size returns the bytes of all batches.
func (q *held) size() (n int) {
	for _, b := range q.batches {
		n += len(b.buf)
	}
	return n
}

// begin forgets all batches, which have been captured by other means, and makes from
// the place to read on from.
func (q *held) begin(from wal.Chain) {
	q.batches, q.chain, q.gone = nil, from, q.added
}

// next returns the batch that takes what is read next.
func (q *held) next() *batch {
	if n := len(q.batches); n > 0 && !q.batches[n-1].closed {
		return q.batches[n-1]
	}
	if len(q.spare) == 0 {
		q.spare = append(q.spare, &batch{})
	}
	b := q.spare[len(q.spare)-1]
	b.begin(q.chain)
	return b
}

// add enters what was read into b since next returned it.
func (q *held) add(b *batch) {
	q.chain = b.chain
	if n := len(q.batches); len(b.pages) > 0 && (n == 0 || q.batches[n-1] != b) {
		q.spare = q.spare[:len(q.spare)-1] // it was b
		q.batches = append(q.batches, b)
		q.added++
	}
}

// turn goes on at the start of another generation.
func (q *held) turn(from wal.Chain) {
	if n := len(q.batches); n > 0 {
		q.batches[n-1].closed = true
	}
	q.chain = from
}

// first closes the oldest batch and returns it.
func (q *held) first() *batch {
	q.batches[0].closed = true
	return q.batches[0]
}

// done removes the oldest batch, which is in an LTX file now.
func (q *held) done() {
	if len(q.spare) < maxSpare {
		q.spare = append(q.spare, q.batches[0])
	}
	q.batches = slices.Delete(q.batches, 0, 1)
	q.gone++
}

// release lets go of spare buffers: an idle database keeps none.
func (q *held) release() { q.spare = nil }
