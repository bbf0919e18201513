package ltxfile

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/tempfile"
)

// Writer writes an LTX file from frames that are encoded already. Memory does
// not grow with the file: a page index of more than 1 MiB waits in a temporary
// file.
type Writer struct {
	w      io.Writer
	flush  func() error
	sum    Sum
	header ltx.Header
	off    int64
	index  spill
}

const writeBuffer = 256 << 10

// NewWriter writes the header. spillDir is where a large page index waits, ""
// means os.TempDir. What goes to w goes through a buffer of 256 KiB, unless w is an
// io.ByteWriter, as a bytes.Buffer is: then it is one itself. Call Finish or Abort.
func NewWriter(w io.Writer, header ltx.Header, spillDir string) (*Writer, error) {
	if err := header.Validate(); err != nil {
		return nil, fmt.Errorf("write header: %w", err)
	}
	b, err := header.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("write header: %w", err)
	}
	lw := &Writer{w: w, flush: func() error { return nil }, sum: newSum(header.PageSize), header: header, index: spill{dir: spillDir}}
	if _, buffered := w.(io.ByteWriter); !buffered {
		buf := bufio.NewWriterSize(w, writeBuffer)
		lw.w, lw.flush = buf, buf.Flush
	}
	return lw, lw.write(b)
}

// write writes b and adds it to the checksum.
func (w *Writer) write(b []byte) error {
	w.sum.bytes(b)
	w.off += int64(len(b))
	_, err := w.w.Write(b)
	return err
}

// Frame appends a frame as it is; dataCRC is that of its decoded page. Pages
// come in ascending order.
func (w *Writer) Frame(f Frame, dataCRC uint64) error {
	w.sum.Page(f, dataCRC)
	err := w.index.add(Entry{Pgno: f.Pgno, Offset: w.off, Size: int64(len(f.Raw))})
	if err != nil {
		return fmt.Errorf("hold page index: %w", err)
	}
	w.off += int64(len(f.Raw))
	_, err = w.w.Write(f.Raw)
	return err
}

// Finish writes page index and trailer, and returns the trailer and the size of
// the file in bytes.
func (w *Writer) Finish(post ltx.Checksum) (t ltx.Trailer, size int64, err error) {
	defer func() { err = errors.Join(err, w.Abort()) }()
	if err := w.write(make([]byte, ltx.PageHeaderSize)); err != nil {
		return t, 0, err
	}
	n, err := w.index.copyTo(w.write)
	if err != nil {
		return t, 0, fmt.Errorf("write page index: %w", err)
	}
	if err := w.write(binary.BigEndian.AppendUint64(nil, uint64(n))); err != nil {
		return t, 0, err
	}
	t = ltx.Trailer{PostApplyChecksum: post}
	b, err := t.MarshalBinary()
	if err != nil {
		return t, 0, err
	}
	w.sum.bytes(b[:ltx.TrailerChecksumOffset])
	t.FileChecksum = w.sum.checksum()
	if err := t.Validate(w.header); err != nil {
		return t, 0, fmt.Errorf("write trailer: %w", err)
	}
	if b, err = t.MarshalBinary(); err != nil {
		return t, 0, err
	}
	if _, err := w.w.Write(b); err != nil {
		return t, 0, err
	}
	return t, w.off + ltx.TrailerSize, w.flush()
}

// Abort frees what the Writer holds; after Finish it does nothing.
func (w *Writer) Abort() error { return w.index.close() }

// spill holds the page index: in memory, and what is more in a file without a
// name.
type spill struct {
	dir  string
	mem  []byte
	file *os.File
	size int64 // of what is in file
}

const spillAt = 1 << 20 // bytes

func (s *spill) add(e Entry) error {
	s.mem = appendEntry(s.mem, e)
	if len(s.mem) < spillAt {
		return nil
	}
	if s.file == nil {
		f, err := tempfile.Open(s.dir, "ltx-index-*.tmp")
		if err != nil {
			return err
		}
		s.file = f
	}
	n, err := s.file.Write(s.mem)
	s.size += int64(n)
	s.mem = s.mem[:0]
	return err
}

// copyTo writes the whole index with its end mark, and returns its length.
func (s *spill) copyTo(write func([]byte) error) (int64, error) {
	s.mem = append(s.mem, 0)
	total := s.size + int64(len(s.mem))
	if s.file != nil {
		buf := make([]byte, 64<<10)
		r := io.NewSectionReader(s.file, 0, s.size)
		for {
			n, err := r.Read(buf)
			if n > 0 {
				if err := write(buf[:n]); err != nil {
					return 0, err
				}
			}
			if err == io.EOF {
				break
			}
			if err != nil {
				return 0, err
			}
		}
	}
	return total, write(s.mem)
}

func (s *spill) close() error {
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	s.file = nil
	return err
}
