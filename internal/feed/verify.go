package feed

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/pierrec/lz4/v4"
	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/wire"
)

// verifier checks whole LTX files. It keeps its buffers: not for concurrent
// use.
type verifier struct {
	page []byte
	r    *bufio.Reader
}

// verify decodes the whole file: structure, file checksum, header and trailer
// equal to meta; a full file must hold every page and add up to its checksum.
// Errors wrap ErrContent or ErrHeader, unless reading itself failed.
func (v *verifier) verify(b *body, meta wire.Meta) error {
	if err := v.frames(v.reader(b), meta); err != nil {
		return fmt.Errorf("%w: %w", ErrContent, err)
	}
	dec := ltx.NewDecoder(v.reader(b))
	dec.SetRetainPageIndex(false)
	sum, err := v.pages(dec, meta)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrContent, err)
	}
	got := wire.MetaOf(dec.Header(), dec.Trailer(), b.size)
	if !sameFile(got, meta) {
		return fmt.Errorf("%w: %s → %s", ErrHeader, got.PrePos(), got.PostPos())
	}
	if meta.Full && sum != meta.Post {
		return fmt.Errorf("%w: pages add up to %s, want %s", ErrContent, sum, meta.Post)
	}
	return nil
}

func (v *verifier) reader(b *body) io.Reader {
	if b.spool == nil {
		return bytes.NewReader(b.data)
	}
	if v.r == nil {
		v.r = bufio.NewReaderSize(nil, 256<<10)
	}
	v.r.Reset(b.section())
	return v.r
}

// sameFile compares what LTX file and message headers both say.
func sameFile(a, b wire.Meta) bool {
	return a.Min == b.Min && a.Max == b.Max && a.Timestamp.Equal(b.Timestamp) && a.Pre == b.Pre && a.Post == b.Post &&
		a.PageSize == b.PageSize && a.Commit == b.Commit && a.Size == b.Size
}

// pages decodes everything and returns the checksum over the pages when meta
// says that they are all there.
func (v *verifier) pages(dec *ltx.Decoder, meta wire.Meta) (ltx.Checksum, error) {
	if err := dec.DecodeHeader(); err != nil {
		return 0, fmt.Errorf("decode header: %w", err)
	}
	if dec.Header().PageSize != meta.PageSize {
		return 0, fmt.Errorf("page size is %d, want %d", dec.Header().PageSize, meta.PageSize)
	}
	if len(v.page) != int(meta.PageSize) {
		v.page = make([]byte, meta.PageSize)
	}
	sum := ltx.Checksum(ltx.ChecksumFlag)
	for {
		var h ltx.PageHeader
		if err := dec.DecodePage(&h, v.page); err == io.EOF {
			break
		} else if err != nil {
			return 0, fmt.Errorf("decode page: %w", err)
		}
		if meta.Full {
			sum = ltx.ChecksumFlag | (sum ^ ltx.ChecksumPage(h.Pgno, v.page))
		}
	}
	if err := dec.Close(); err != nil {
		return 0, fmt.Errorf("close decoder: %w", err)
	}
	return sum, nil
}

// frames walks the page frames before anything is decoded: page numbers
// ascend inside the database, skip the lock page, and no frame claims more
// bytes than a page can need, so that decoding allocates no more than that.
func (v *verifier) frames(r io.Reader, meta wire.Meta) error {
	if err := skip(r, ltx.HeaderSize); err != nil {
		return err
	}
	lock, bound := ltx.LockPgno(meta.PageSize), uint32(lz4.CompressBlockBound(int(meta.PageSize)))
	var prev uint32
	var n int64
	for {
		var head [ltx.PageHeaderSize]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return fmt.Errorf("read page header: %w", err)
		}
		pgno, flags := binary.BigEndian.Uint32(head[:]), binary.BigEndian.Uint16(head[4:])
		if pgno == 0 {
			return checkCount(n, lock, meta)
		}
		if pgno <= prev || pgno > meta.Commit || pgno == lock || flags != ltx.PageHeaderFlagSize {
			return fmt.Errorf("page %d (flags %#x) after page %d of %d", pgno, flags, prev, meta.Commit)
		}
		if _, err := io.ReadFull(r, head[:4]); err != nil {
			return fmt.Errorf("read page size: %w", err)
		}
		size := binary.BigEndian.Uint32(head[:])
		if size > bound {
			return fmt.Errorf("page %d claims %d compressed bytes", pgno, size)
		}
		if err := skip(r, int64(size)); err != nil {
			return err
		}
		prev, n = pgno, n+1
	}
}

func checkCount(n int64, lock uint32, meta wire.Meta) error {
	want := int64(meta.Commit)
	if lock <= meta.Commit {
		want--
	}
	if meta.Full && n != want {
		return fmt.Errorf("full file holds %d of %d pages", n, want)
	}
	return nil
}

// skip moves r past n bytes; both readers of verifier can do so cheaply.
func skip(r io.Reader, n int64) error {
	switch r := r.(type) {
	case *bytes.Reader:
		if n > int64(r.Len()) {
			return io.ErrUnexpectedEOF
		}
		_, err := r.Seek(n, io.SeekCurrent)
		return err
	case *bufio.Reader:
		_, err := r.Discard(int(n))
		return err
	}
	_, err := io.CopyN(io.Discard, r, n)
	return err
}
