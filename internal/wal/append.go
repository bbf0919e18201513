package wal

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
)

// Appender writes one transaction behind the last committed frame, as the one
// writer: the caller holds WRITE from Begin to Commit, or until it drops the
// Appender to abort. Nothing is visible to any reader before Commit. After a
// crash in between, frames without a commit are as if never written; once the
// last page was flushed, a recovery after a crash may find the transaction
// committed, as with any writer of SQLite. It is not safe for concurrent use.
type Appender struct {
	d     *DB
	base  Header // what readers see until Commit
	chain Chain
	buf   []byte
	first uint32 // number of the first frame in buf
	pgnos []uint32
	last  uint32 // commit of the last page added
	err   error
}

const (
	appendChunk = 1 << 20
	spareMost   = 256 << 10 // bytes of buffer kept from one transaction to the next
)

// Begin starts a transaction. bigEndian is the byte order of the checksums of a
// generation that begins with it; one that goes on keeps its own.
func (d *DB) Begin(pageSize uint32, bigEndian bool) (*Appender, error) {
	if !d.locks.holds(Write) {
		return nil, errors.New("begin transaction: WRITE must be held")
	}
	h, err := d.Header()
	if err != nil {
		return nil, fmt.Errorf("begin transaction: %w", err)
	}
	a := &Appender{d: d, base: h, chain: h.Chain(), buf: d.spare.buf[:0], pgnos: d.spare.pgnos[:0]}
	switch {
	case !validPageSize(pageSize):
		err = fmt.Errorf("page size %d: %w", pageSize, ErrFormat)
	case h.MaxFrame == 0:
		h.PageSize, h.BigEndian = pageSize, bigEndian
		if h.Salt == (Salt{}) {
			h.Salt = newSalt()
		}
		a.base = h
		a.chain, err = d.startFile(h)
	case h.PageSize != pageSize:
		err = fmt.Errorf("page size %d, the WAL has %d", pageSize, h.PageSize)
	}
	if err != nil {
		return nil, fmt.Errorf("begin transaction: %w", err)
	}
	return a, nil
}

// newSalt draws both salts, for a WAL of which no earlier generation is known:
// the index was recovered from an empty file.
func newSalt() Salt {
	var b [8]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return Salt{binary.BigEndian.Uint32(b[:]), binary.BigEndian.Uint32(b[4:])}
}

// startFile writes the header of the -wal file. It is synced before any frame
// may follow: else a power loss could leave the old header before old frames,
// and so bring back old pages over newer ones in the database file.
func (d *DB) startFile(h Header) (Chain, error) {
	fh := FileHeader{BigEndian: h.BigEndian, PageSize: h.PageSize, Salt: h.Salt}
	if old, _, err := d.FileHeader(); err == nil {
		fh.Sequence = old.Sequence + 1
	}
	var b [FileHeaderSize]byte
	sum := fh.Encode(b[:])
	if _, err := d.wal.WriteAt(b[:], 0); err != nil {
		return Chain{}, fmt.Errorf("write wal header: %w", err)
	}
	if err := d.sync(d.wal); err != nil {
		return Chain{}, fmt.Errorf("sync wal: %w", err)
	}
	return StartChain(fh, sum), nil
}

// Last returns the number of the last frame added so far.
func (a *Appender) Last() uint32 { return a.chain.Frame }

// Chain returns the place in the WAL behind the last frame added so far.
func (a *Appender) Chain() Chain { return a.chain }

// Salt returns the salts of the generation written to.
func (a *Appender) Salt() Salt { return a.chain.Salt }

// Add appends page as the new content of pgno. commit is 0, or, on the last
// page of the transaction, the size of the database in pages. page is copied.
// Page 0, the lock page, and a page after the last are refused.
func (a *Appender) Add(pgno, commit uint32, page []byte) error {
	if a.err != nil {
		return a.err
	}
	if pgno == 0 || pgno == LockPgno(a.chain.PageSize) || a.last != 0 {
		return fmt.Errorf("add page %d after a commit of %d pages: not a page of this transaction: %w", pgno, a.last, ErrFormat)
	}
	a.last = commit
	if len(a.buf)+a.chain.FrameSize() > appendChunk {
		if err := a.Flush(); err != nil {
			return err
		}
	}
	if len(a.pgnos) == 0 {
		a.first = a.chain.Frame + 1
	}
	at := len(a.buf)
	a.buf = append(a.buf, make([]byte, FrameHeaderSize)...)
	a.buf = append(a.buf, page[:a.chain.PageSize]...)
	a.pgnos = append(a.pgnos, pgno)
	a.chain.Put(a.buf[at:], FrameHeader{Pgno: pgno, Commit: commit})
	return nil
}

// Flush writes what was added so far to the -wal file and enters it in the
// wal-index, still invisible.
func (a *Appender) Flush() error {
	if a.err != nil || len(a.pgnos) == 0 {
		return a.err
	}
	a.err = a.flush()
	a.buf, a.pgnos = a.buf[:0], a.pgnos[:0]
	if cap(a.buf) <= spareMost {
		a.d.spare.buf, a.d.spare.pgnos = a.buf, a.pgnos
	}
	return a.err
}

func (a *Appender) flush() error {
	if _, err := a.d.wal.WriteAt(a.buf, FrameOffset(a.first, a.chain.PageSize)); err != nil {
		return fmt.Errorf("write wal: %w", err)
	}
	for i, pgno := range a.pgnos {
		if err := a.d.index.add(a.first+uint32(i), pgno); err != nil {
			return err
		}
	}
	return nil
}

// Commit makes the transaction visible at once to every reader that begins
// after it. The last page added must have carried pageCount as its commit.
// Durable once the WAL is synced, by a backfill at the latest.
func (a *Appender) Commit(pageCount uint32) (Header, error) {
	if pageCount == 0 || a.last != pageCount {
		return Header{}, fmt.Errorf("commit %d pages: the last page added says %d: %w", pageCount, a.last, ErrFormat)
	}
	if err := a.Flush(); err != nil {
		return Header{}, err
	}
	h := a.base
	h.Change++
	h.MaxFrame = a.chain.Frame
	h.PageCount = pageCount
	h.FrameSum = a.chain.Sum
	h.Salt = a.chain.Salt
	a.d.index.writeHeader(h)
	return h, nil
}
