package feed

import (
	"fmt"
	"time"

	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/wire"
)

// assembler joins the parts of one file at a time.
type assembler struct {
	limit int64
	dir   string

	file     *File // being joined, nil: none
	key      wire.Meta
	next     int // the part it waits for
	partSize int // body length of part 1
}

// part is one data message.
type part struct {
	meta   wire.Meta
	seq    uint64
	stored time.Time
	data   []byte
}

// busy reports whether a file is half joined.
func (a *assembler) busy() bool { return a.file != nil }

// drop forgets the unfinished file.
func (a *assembler) drop() {
	if a.file != nil {
		_ = a.file.Close() // a spool without a name: nothing can be lost
		a.file = nil
	}
}

// beginOf returns the sequence at which the file began that a message at seq is of; 0:
// not known.
func (a *assembler) beginOf(m wire.Meta, seq uint64) uint64 {
	switch {
	case m.Part == 1:
		return seq
	case a.busy() && a.key == stream.FileOf(m):
		return a.file.FirstSeq
	}
	return 0
}

// add takes the next message. It returns the file once its last part is in;
// errors wrap ErrPart or ErrSize, unless the spool failed.
func (a *assembler) add(p part) (*File, error) {
	if p.meta.Part == 1 {
		return a.begin(p)
	}
	if a.file == nil || a.key != stream.FileOf(p.meta) {
		return nil, fmt.Errorf("%w: part %d/%d of TXID %s", ErrPart, p.meta.Part, p.meta.Parts, p.meta.Min)
	}
	if p.meta.Part < a.next {
		return nil, nil // sent twice
	}
	if p.meta.Part > a.next {
		want := a.next
		a.drop()
		return nil, fmt.Errorf("%w: part %d/%d of TXID %s, want %d", ErrPart, p.meta.Part, p.meta.Parts, p.meta.Min, want)
	}
	return a.append(p)
}

// begin starts a file with its part 1. A file that is one message comes out at
// once and leaves the one being joined alone; else that one is dropped.
func (a *assembler) begin(p part) (*File, error) {
	n := len(p.data)
	if err := stream.CheckSize(p.meta, n); err != nil {
		return nil, err
	}
	f := &File{Meta: p.meta, FirstSeq: p.seq}
	if p.meta.Parts == 1 {
		f.body = body{data: p.data, size: p.meta.Size} // the message's own buffer: no copy
		f.LastSeq, f.Stored = p.seq, p.stored
		return f, nil
	}
	a.drop()
	var err error
	if f.body, err = newBody(p.meta.Size, a.limit, a.dir); err != nil {
		return nil, err
	}
	a.file, a.key, a.next, a.partSize = f, stream.FileOf(p.meta), 1, n
	return a.append(p)
}

func (a *assembler) append(p part) (*File, error) {
	_, want := wire.PartRange(p.meta.Size, a.partSize, p.meta.Part)
	if int64(len(p.data)) != want {
		a.drop()
		return nil, fmt.Errorf("%w: part %d/%d has %d bytes, want %d", ErrSize, p.meta.Part, p.meta.Parts, len(p.data), want)
	}
	if err := a.file.body.append(p.data); err != nil {
		a.drop()
		return nil, err
	}
	if a.next++; a.next <= p.meta.Parts {
		return nil, nil
	}
	f := a.file
	a.file = nil
	f.LastSeq, f.Stored = p.seq, p.stored
	return f, nil
}
