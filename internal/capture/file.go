package capture

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/ltxfile"
)

// File is one LTX file in the spool.
type File struct {
	Header  ltx.Header
	Trailer ltx.Trailer
	Size    int64
	Full    bool // holds every page of the database

	path string
	off  int64  // in the file at path
	data []byte // the content, while it is small and new
}

// TXID returns the file's transaction.
func (f File) TXID() ltx.TXID { return f.Header.MaxTXID }

// Pos returns the position after the file.
func (f File) Pos() ltx.Pos {
	return ltx.Pos{TXID: f.Header.MaxTXID, PostApplyChecksum: f.Trailer.PostApplyChecksum}
}

// PrePos returns the position before the file.
func (f File) PrePos() ltx.Pos { return f.Header.PreApplyPos() }

// Content is an opened File.
type Content interface {
	io.ReaderAt
	io.Closer
}

type memory struct{ *bytes.Reader }

func (memory) Close() error { return nil }

// stored is the part of a file that an LTX file takes up.
type stored struct {
	*io.SectionReader
	io.Closer
}

// Open opens the content. The file may leave the spool meanwhile; what is open
// stays readable.
func (f File) Open() (Content, error) {
	if f.data != nil {
		return memory{bytes.NewReader(f.data)}, nil
	}
	r, err := os.Open(f.path)
	if err != nil {
		return nil, fmt.Errorf("open spooled ltx file: %w", err)
	}
	return stored{io.NewSectionReader(r, f.off, f.Size), r}, nil
}

// Bytes returns the whole content where it is at hand in memory; else nil. The
// caller must not change it.
func (f File) Bytes() []byte { return f.data }

// readFile reads the LTX file of size bytes at off of r, and verifies it whole.
func readFile(r io.ReaderAt, path string, off, size int64, full bool) (File, error) {
	c, err := ltxfile.Verify(io.NewSectionReader(r, off, size))
	if err != nil {
		return File{}, fmt.Errorf("verify %s: %w", path, err)
	}
	return File{Header: c.Header, Trailer: c.Trailer, Size: size, Full: full, path: path, off: off}, nil
}
