package ltxfile

import (
	"encoding/binary"
	"errors"
	"io"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/crc64iso"
)

// Scanner walks the frames of an LTX file from start to end, without decoding
// them. What it cannot check without the pages, the file's checksum, the caller
// adds up with a [Sum] and hands to [Scanner.Finish]. The zero Scanner begins with
// [Scanner.Reset].
type Scanner struct {
	r      io.Reader
	buf    []byte // window; buf[rd:wr] is unread
	rd, wr int
	off    int64 // offset in the file of buf[wr]
	header ltx.Header
	raw    [ltx.HeaderSize]byte // the header as it is stored
	prev   uint32
	index  indexSum
	tail   Sum // over what follows the pages
}

const (
	windowSize  = 256 << 10 // more than one frame of any size
	firstWindow = 4 << 10   // many small files are merged at once
)

// NewScanner begins to read a file.
func NewScanner(r io.Reader) (*Scanner, error) {
	s := new(Scanner)
	if err := s.Reset(r); err != nil {
		return nil, err
	}
	return s, nil
}

// Reset begins to read another file, and reads its header. The window, which has
// grown to what the files before it needed, is kept.
func (s *Scanner) Reset(r io.Reader) error {
	*s = Scanner{r: r, buf: s.buf}
	if s.buf == nil {
		s.buf = make([]byte, firstWindow)
	}
	b, err := s.peek(ltx.HeaderSize)
	if err != nil {
		return err
	}
	if s.header, err = ParseHeader(b); err != nil {
		return err
	}
	s.rd += copy(s.raw[:], b)
	return nil
}

// Header is the file's header.
func (s *Scanner) Header() ltx.Header { return s.header }

// Sum returns the file's checksum up to its first page.
func (s *Scanner) Sum() Sum {
	sum := newSum(s.header.PageSize)
	sum.bytes(s.raw[:])
	return sum
}

// peek returns the next n bytes, unread still, valid until the next call.
func (s *Scanner) peek(n int) ([]byte, error) {
	if s.wr-s.rd < n {
		s.refill(n)
		m, err := io.ReadAtLeast(s.r, s.buf[s.wr:], n-s.wr)
		s.wr += m
		s.off += int64(m)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil, damaged("it ends after %d bytes: %w", s.off, io.ErrUnexpectedEOF)
		}
		if err != nil {
			return nil, err
		}
	}
	return s.buf[s.rd : s.rd+n], nil
}

// refill makes room for n unread bytes at least: a window that was used up once
// is doubled.
func (s *Scanner) refill(n int) {
	buf := s.buf
	if n > len(buf) || s.wr == len(buf) && len(buf) < windowSize {
		buf = make([]byte, min(max(2*len(buf), n), max(windowSize, n)))
	}
	s.wr = copy(buf, s.buf[s.rd:s.wr])
	s.buf, s.rd = buf, 0
}

// at is the offset in the file of the next unread byte.
func (s *Scanner) at() int64 { return s.off - int64(s.wr-s.rd) }

// Next returns the next frame, valid until the next call; io.EOF: there is none
// left, [Scanner.Finish] is next.
func (s *Scanner) Next() (Frame, error) {
	b, err := s.peek(ltx.PageHeaderSize)
	if err != nil {
		return Frame{}, err
	}
	head := parsePageHead(b)
	if head == (pageHead{}) {
		return Frame{}, io.EOF
	}
	if head.pgno <= s.prev || head.pgno > s.header.Commit || head.pgno == s.header.LockPgno() {
		return Frame{}, damaged("page %d with flags %#x after page %d of %d", head.pgno, head.flags, s.prev, s.header.Commit)
	}
	size, err := s.frameSize(head)
	if err != nil {
		return Frame{}, err
	}
	at := s.at()
	if b, err = s.peek(size); err != nil {
		return Frame{}, err
	}
	s.prev = head.pgno
	s.index.add(Entry{Pgno: head.pgno, Offset: at, Size: int64(size)})
	s.rd += size
	return Frame{Pgno: head.pgno, Raw: b}, nil
}

// frameSize returns the length of the frame that comes next.
func (s *Scanner) frameSize(head pageHead) (int, error) {
	n, err := head.size()
	if err != nil {
		return 0, err
	}
	b, err := s.peek(n)
	if err != nil {
		return 0, err
	}
	size, err := head.frameSize(b)
	if err != nil {
		return 0, err
	}
	if size > int64(maxFrameSize(s.header.PageSize)) {
		return 0, head.fault("it claims a frame of %d bytes", size)
	}
	return int(size), nil
}

// Finish reads what follows the pages: the page index, which must be the one of
// the frames that were walked, and the trailer. sum, which holds the header and
// all pages, is completed, and must be the file's checksum. Nothing may follow.
func (s *Scanner) Finish(sum Sum) (t ltx.Trailer, err error) {
	s.tail = sum
	s.skip(ltx.PageHeaderSize) // the zeros that Next saw
	if err := s.checkIndex(); err != nil {
		return t, err
	}
	b, err := s.peek(ltx.TrailerSize)
	if err != nil {
		return t, err
	}
	if err := t.UnmarshalBinary(b); err != nil {
		return t, damaged("read trailer: %w", err)
	}
	s.skip(ltx.TrailerChecksumOffset)
	s.rd += ltx.ChecksumSize
	if err := t.Validate(s.header); err != nil {
		return t, damaged("read trailer: %w", err)
	}
	if got := s.tail.checksum(); got != t.FileChecksum {
		return t, damaged("its checksum is %s, its trailer says %s", got, t.FileChecksum)
	}
	return t, s.checkEnd()
}

// skip adds the next n bytes, which are in the window, to the sum.
func (s *Scanner) skip(n int) {
	s.tail.bytes(s.buf[s.rd : s.rd+n])
	s.rd += n
}

func (s *Scanner) checkIndex() error {
	s.index.end()
	var crc uint64
	for left := s.index.size; left > 0; {
		b, err := s.peek(int(min(left, windowSize)))
		if err != nil {
			return err
		}
		crc = crc64iso.Update(crc, b)
		s.skip(len(b))
		left -= int64(len(b))
	}
	b, err := s.peek(indexSizeLen)
	if err != nil {
		return err
	}
	if n := binary.BigEndian.Uint64(b); crc != s.index.crc || n != uint64(s.index.size) {
		return damaged("its page index is not that of its pages")
	}
	s.skip(indexSizeLen)
	return nil
}

func (s *Scanner) checkEnd() error {
	if s.rd < s.wr {
		return damaged("it goes on after its trailer")
	}
	n, err := io.ReadFull(s.r, s.buf[:1])
	if n > 0 {
		return damaged("it goes on after its trailer")
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
