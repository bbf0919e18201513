package archive

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"

	"github.com/ltxstream/ltxstream/compactor"
	"github.com/ltxstream/ltxstream/internal/tempfile"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/subscriber"
)

// inMemory is the size in bytes of files up to which the base is made in memory.
const inMemory = 4 << 20

// merge makes one file of the first ones of a chain, as many as may be open.
func (s *search) merge(ctx context.Context, chain []levels.File, whole bool) (*subscriber.Base, error) {
	more := len(chain) > maxInputs && chain[maxInputs-1].Max > s.after.TXID
	if more {
		chain = chain[:maxInputs]
	}
	s.used = chain
	inputs, total := compactor.Inputs(s.archive, s.db, chain)
	out, err := s.room(total)
	if err != nil {
		return nil, err
	}
	m, err := compactor.Merge(ctx, out, inputs, compactor.MergeOptions{Snapshot: whole, SpillDir: s.dir})
	if err != nil {
		return nil, errors.Join(err, out.Close())
	}
	s.post = m.Post
	level := slog.LevelInfo
	if s.follows && !whole {
		level = slog.LevelDebug // one of many
	}
	s.log.Log(ctx, level, "base made from the archive", "db", s.db, "from", m.Header.MinTXID, "to", m.Header.MaxTXID, "files", len(chain), "bytes", m.Size, "full", whole)
	return &subscriber.Base{
		File: out.section(m.Size), Full: whole, NoChecksums: m.Header.NoChecksum(),
		Max: m.Header.MaxTXID, Timestamp: m.Timestamp(), More: more, Closer: out,
	}, nil
}

// base is a file in the making.
type base interface {
	io.WriteCloser
	section(size int64) *io.SectionReader
}

// room makes a base in memory, or in a file without a name.
func (s *search) room(size int64) (base, error) {
	if size <= inMemory {
		return &memoryBase{}, nil
	}
	f, err := tempfile.Open(s.dir, "ltx-base-*.tmp")
	return fileBase{f}, err
}

type memoryBase struct{ bytes.Buffer }

func (b *memoryBase) Close() error { return nil }

func (b *memoryBase) section(size int64) *io.SectionReader {
	return io.NewSectionReader(bytes.NewReader(b.Bytes()), 0, size)
}

type fileBase struct{ *os.File }

func (b fileBase) section(size int64) *io.SectionReader { return io.NewSectionReader(b.File, 0, size) }
