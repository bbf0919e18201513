package feed

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/ltxstream/ltxstream/internal/tempfile"
	"github.com/ltxstream/ltxstream/wire"
)

// File is one LTX file: verified, in memory or in a spool file without a name; or
// incoming (Config.Incoming).
type File struct {
	Meta              wire.Meta // Part and Parts are those of the first message
	FirstSeq, LastSeq uint64    // stream sequences of its first and last message
	Stored            time.Time // when the server stored the last one

	body body
	in   *incoming // instead of body
}

// Section returns a reader over the whole LTX file, valid until Close. Several may
// be used at once, unless the file is incoming: then it can be read once, from its
// start on; the end of ctx ends the wait for its parts; LastSeq and Stored are set
// when all of it was read.
func (f *File) Section(ctx context.Context) *io.SectionReader {
	if f.in != nil {
		return f.in.reader(ctx)
	}
	return f.body.section()
}

// Incoming reports whether the file is read while it is received.
func (f *File) Incoming() bool { return f.in != nil }

// Close frees the file's memory or spool. It may be called twice.
func (f *File) Close() error {
	if f.in != nil {
		f.in.close()
		f.in = nil
	}
	return f.body.close()
}

// body holds the bytes of a file that is being joined or was handed out.
type body struct {
	data  []byte   // in memory, unless
	spool *os.File // this is set
	size  int64
}

// spoolPattern names spool files for the moment they have a name.
const spoolPattern = "feed-*.spool"

// newBody holds size bytes in memory up to limit, else in a file without a name in
// dir.
func newBody(size, limit int64, dir string) (body, error) {
	if size <= limit {
		return body{data: make([]byte, 0, size)}, nil
	}
	f, err := tempfile.Open(dir, spoolPattern)
	if err != nil {
		return body{}, fmt.Errorf("create spool: %w", err)
	}
	return body{spool: f}, nil
}

func (b *body) append(p []byte) error {
	b.size += int64(len(p))
	if b.spool == nil {
		b.data = append(b.data, p...)
		return nil
	}
	if _, err := b.spool.Write(p); err != nil {
		return fmt.Errorf("write spool: %w", err)
	}
	return nil
}

func (b *body) section() *io.SectionReader {
	if b.spool != nil {
		return io.NewSectionReader(b.spool, 0, b.size)
	}
	return io.NewSectionReader(bytes.NewReader(b.data), 0, int64(len(b.data)))
}

func (b *body) close() error {
	spool := b.spool
	*b = body{}
	if spool == nil {
		return nil
	}
	return spool.Close()
}

// removeLeftovers removes spool files that a crash left between their creation
// and the removal of their name.
func removeLeftovers(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, spoolPattern))
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := os.Remove(name); err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("remove old spool: %w", err)
		}
	}
	return nil
}
