package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// A segment holds LTX files one behind the other, each after a record header:
// making and removing a file costs more than all the rest of a small capture.
// Files that are too large for memory have a file each, between two segments.
type segment struct {
	f    *os.File
	size int64
}

const (
	segmentSuffix = ".seg"
	segmentSize   = 4 << 20 // bytes, from which on a new one begins

	recordMagic  = "LTXR"
	recordHeader = 16 // magic, flags (bit 0: full), size of the LTX file; big-endian
	recordFull   = 1
)

// put writes f, whose data is at hand, behind the others of the segment, and
// says in f where. A write that fails leaves nothing behind.
func (s *spool) put(f *File) error {
	if s.seg == nil || s.seg.size >= segmentSize {
		if err := s.beginSegment(f); err != nil {
			return fmt.Errorf("spool ltx file: %w", err)
		}
	}
	record := make([]byte, recordHeader, recordHeader+len(f.data))
	copy(record, recordMagic)
	if f.Full {
		binary.BigEndian.PutUint32(record[4:], recordFull)
	}
	binary.BigEndian.PutUint64(record[8:], uint64(len(f.data)))
	record = append(record, f.data...)
	if _, err := s.seg.f.WriteAt(record, s.seg.size); err != nil {
		return errors.Join(fmt.Errorf("spool ltx file: %w", err), s.seg.f.Truncate(s.seg.size))
	}
	f.path, f.off = s.seg.f.Name(), s.seg.size+recordHeader
	f.data = record[recordHeader:]
	s.seg.size += int64(len(record))
	return nil
}

func (s *spool) beginSegment(f *File) error {
	if err := s.endSegment(); err != nil {
		return err
	}
	out, err := os.Create(filepath.Join(s.dir, f.TXID().String()+segmentSuffix))
	if err != nil {
		return err
	}
	s.seg = &segment{f: out}
	return nil
}

// endSegment makes the next file begin a new segment.
func (s *spool) endSegment() error {
	if s.seg == nil {
		return nil
	}
	err := s.seg.f.Close()
	s.seg = nil
	return err
}

// undo takes back f, the last one written, which nobody has seen.
func (s *spool) undo(f File) error {
	if s.seg == nil || s.seg.f.Name() != f.path {
		return os.Remove(f.path)
	}
	s.seg.size = f.off - recordHeader
	return s.seg.f.Truncate(s.seg.size)
}

// readSegment reads the files of a segment up to the first that is damaged or
// half written. What lies behind that is cut off.
func readSegment(path string) (files []File, err error) {
	r, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	fi, err := r.Stat()
	if err != nil {
		return nil, err
	}
	off := int64(0)
	for {
		f, err := readRecord(r, path, off, fi.Size())
		if err != nil {
			break
		}
		files = append(files, f)
		off = f.off + f.Size
	}
	if off < fi.Size() {
		err = r.Truncate(off)
	}
	return files, err
}

func readRecord(r io.ReaderAt, path string, off, end int64) (File, error) {
	var h [recordHeader]byte
	if _, err := r.ReadAt(h[:], off); err != nil {
		return File{}, err
	}
	size := binary.BigEndian.Uint64(h[8:])
	if string(h[:4]) != recordMagic || size > uint64(end-off-recordHeader) {
		return File{}, io.ErrUnexpectedEOF
	}
	return readFile(r, path, off+recordHeader, int64(size), binary.BigEndian.Uint32(h[4:])&recordFull != 0)
}
