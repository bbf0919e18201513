package generations

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ltxstream/ltxstream/internal/wal"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/restore"
)

// database is the output while it is made: the snapshot, and then the pages of one
// transaction after the other.
type database struct {
	out      *restore.Output
	pageSize uint32
	pages    uint32 // after the last commit of this WAL; 0: it has none yet
	open     frameBuffer
}

// newDatabase writes the snapshot, which is the next of the contents.
func newDatabase(c *contents, s Snapshot, out *restore.Output) (*database, error) {
	pageSize, err := copySnapshot(c, s, io.NewOffsetWriter(out, 0))
	return &database{out: out, pageSize: pageSize}, err
}

// copySnapshot copies a snapshot, which is the next of the contents.
func copySnapshot(c *contents, s Snapshot, to io.Writer) (pageSize uint32, err error) {
	c.open(s.Object)
	head := make([]byte, headSize)
	n, err := io.ReadFull(c, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return 0, err
	}
	if pageSize, err = pageSizeOf(head[:n]); err != nil {
		return 0, &levels.DamageError{Key: s.Key, Err: err}
	}
	r := io.MultiReader(bytes.NewReader(head), c)
	size, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{r}, make([]byte, readAtOnce)) // through the buffer
	if err == nil && size%int64(pageSize) != 0 {
		err = &levels.DamageError{Key: s.Key, Err: fmt.Errorf("%d bytes are not whole pages of %d", size, pageSize)}
	}
	return pageSize, err
}

const (
	fileMagic = "SQLite format 3\x00"
	headSize  = 100 // bytes of the header of a database file
)

// pageSizeOf reads the page size out of the header of a database file
// (fileformat2.html section 1.3).
func pageSizeOf(head []byte) (uint32, error) {
	if len(head) < headSize || string(head[:len(fileMagic)]) != fileMagic {
		return 0, errors.New("it is no SQLite database")
	}
	size := uint32(binary.BigEndian.Uint16(head[16:]))
	if size == 1 {
		size = 65536
	}
	if size < 512 || size&(size-1) != 0 {
		return 0, fmt.Errorf("it is no SQLite database: page size %d", size)
	}
	return size, nil
}

// frame takes the next frame of a WAL. Its page is written with its transaction.
func (d *database) frame(frame []byte, h wal.FrameHeader) error {
	if err := d.open.add(frame); err != nil {
		return err
	}
	if h.Commit == 0 {
		return nil
	}
	d.pages = h.Commit
	return d.open.drain(len(frame), func(frame []byte) error {
		pgno := binary.BigEndian.Uint32(frame)
		_, err := d.out.WriteAt(frame[wal.FrameHeaderSize:], int64(pgno-1)*int64(d.pageSize))
		return err
	})
}

// endWAL makes the database as long as the last commit says, as a checkpoint does
// once it has written all pages of a WAL, and drops what was not committed.
func (d *database) endWAL() error {
	pages := d.pages
	d.pages = 0
	if err := d.open.reset(); err != nil || pages == 0 {
		return err
	}
	return d.out.File.Truncate(int64(pages) * int64(d.pageSize))
}
