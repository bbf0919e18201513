package capture

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/ltxstream/ltxstream/internal/ltxfile"
	"github.com/ltxstream/ltxstream/internal/pagesum"
	"github.com/ltxstream/ltxstream/internal/wal"
	"github.com/superfly/ltx"
)

// inMemory is the size, in bytes of pages, up to which an LTX file is encoded
// in memory and handed on from there.
const inMemory = 4 << 20

// encoder writes changes as LTX files into the spool directory.
type encoder struct {
	dir      string
	lastTime int64 // milliseconds; timestamps never go backwards
	buf      bytes.Buffer
	page     []byte
	frame    []byte
	sums     []pagesum.Page
}

// notBefore has later files bear at least this timestamp, in milliseconds.
func (e *encoder) notBefore(t int64) { e.lastTime = max(e.lastTime, t) }

// header makes the LTX header of c as transaction txid on top of pre. The WAL
// fields say where the frames were: offset and size of the covered part of the
// -wal file, which for a comparison is the empty part at its end.
func (e *encoder) header(c *changes, txid ltx.TXID, pre ltx.Checksum) ltx.Header {
	e.notBefore(time.Now().UnixMilli())
	h := ltx.Header{
		Version:   ltx.Version,
		PageSize:  c.pageSize,
		Commit:    c.count,
		MinTXID:   txid,
		MaxTXID:   txid,
		Timestamp: e.lastTime,
		WALSalt1:  c.end.Salt[0],
		WALSalt2:  c.end.Salt[1],
	}
	if txid != 1 {
		h.PreApplyChecksum = pre | ltx.ChecksumFlag
	}
	end := wal.FrameOffset(c.end.Frame+1, c.pageSize)
	h.WALOffset = end
	if c.start != 0 {
		h.WALOffset = wal.FrameOffset(c.start, c.pageSize)
	}
	h.WALSize = end - h.WALOffset
	return h
}

// write encodes c into the spool and returns the file with the checksums of its
// pages, which stay valid until the next call. post computes the rolling checksum
// from them. Where it fails nothing is left behind.
func (e *encoder) write(s *spool, db *wal.DB, c *changes, h ltx.Header, post func([]pagesum.Page) ltx.Checksum) (File, []pagesum.Page, error) {
	f := File{Header: h, Full: c.full}
	put := e.writeLarge
	if int64(len(c.pages))*int64(c.pageSize) <= inMemory {
		put = e.writeSmall
	}
	if err := put(s, db, c, &f, post); err != nil {
		return File{}, nil, err
	}
	return f, e.sums, nil
}

// writeSmall encodes in memory, where the file stays for the first reader.
func (e *encoder) writeSmall(s *spool, db *wal.DB, c *changes, f *File, post func([]pagesum.Page) ltx.Checksum) error {
	e.buf.Reset()
	if err := e.encode(&e.buf, db, c, f, post); err != nil {
		return fmt.Errorf("spool ltx file: %w", err)
	}
	f.data = e.buf.Bytes()
	return s.put(f)
}

// writeLarge encodes into a file of its own.
func (e *encoder) writeLarge(s *spool, db *wal.DB, c *changes, f *File, post func([]pagesum.Page) ltx.Checksum) error {
	if err := s.endSegment(); err != nil {
		return fmt.Errorf("spool ltx file: %w", err)
	}
	f.path = s.path(f.TXID(), f.Full)
	out, err := os.Create(f.path)
	if err != nil {
		return fmt.Errorf("spool ltx file: %w", err)
	}
	w := bufio.NewWriterSize(out, readChunk)
	if err = e.encode(w, db, c, f, post); err == nil {
		err = w.Flush()
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return errors.Join(fmt.Errorf("spool ltx file: %w", err), os.Remove(f.path))
	}
	return nil
}

func (e *encoder) encode(w io.Writer, db *wal.DB, c *changes, f *File, post func([]pagesum.Page) ltx.Checksum) (err error) {
	out, err := ltxfile.NewWriter(w, f.Header, e.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Abort()) }()
	e.sums = e.sums[:0]
	per := max(1, readChunk/int(c.pageSize))
	for p, err := range e.pages(db, c) {
		if err == nil && c.ease != nil && len(e.sums)%per == per-1 {
			err = c.ease()
		}
		if err != nil {
			return err
		}
		e.sums = append(e.sums, p.sum)
		frame, err := ltxfile.Pack(e.frame, p.sum.Pgno, p.data)
		if err != nil {
			return err
		}
		e.frame = frame.Raw
		if err := out.Frame(frame, p.crc); err != nil {
			return fmt.Errorf("encode page %d: %w", p.sum.Pgno, err)
		}
	}
	f.Trailer, f.Size, err = out.Finish(post(e.sums))
	return err
}

// release lets go of large buffers: an idle database keeps none.
func (e *encoder) release() { e.buf, e.page, e.frame, e.sums = bytes.Buffer{}, nil, nil, nil }
