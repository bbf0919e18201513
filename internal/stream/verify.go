package stream

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/ltxfile"
	"github.com/ltxstream/ltxstream/wire"
)

// What is wrong with a message that is not damaged in itself.
var (
	ErrHeader = errors.New("LTX header differs from the message headers")
	ErrSize   = errors.New("size differs from the headers")
)

// Verify reads a whole LTX file: structure, file checksum, header and trailer equal
// to meta; a full file must hold every page and add up to its checksum. Errors wrap
// ltxfile.ErrDamaged or ErrHeader, unless reading itself failed.
func Verify(v *ltxfile.Verifier, r io.Reader, meta wire.Meta) error {
	c, err := v.Verify(r)
	if err != nil {
		return err
	}
	if got := wire.MetaOf(c.Header, c.Trailer, c.Size); !sameFile(got, meta) {
		return fmt.Errorf("%w: %s → %s", ErrHeader, got.PrePos(), got.PostPos())
	}
	if meta.Full {
		return c.Whole()
	}
	return nil
}

// CheckSize returns an ErrSize unless n bytes may be the body of a message of meta: that
// of a first part gives how many there are.
func CheckSize(meta wire.Meta, n int) error {
	if n == 0 || meta.Part == 1 && wire.PartCount(meta.Size, n) != meta.Parts || meta.Parts == 1 && int64(n) != meta.Size {
		return fmt.Errorf("%w: part %d/%d has %d of %d bytes", ErrSize, meta.Part, meta.Parts, n, meta.Size)
	}
	return nil
}

// Check verifies m as far as one message tells: a whole file, or the LTX header or
// trailer that a first or last part holds. Errors are those of Verify, and ErrSize.
func (m *Message) Check() error {
	meta, n := m.Meta, len(m.Data)
	if err := CheckSize(meta, n); err != nil {
		return err
	}
	switch {
	case meta.Parts == 1:
		return Verify(new(ltxfile.Verifier), bytes.NewReader(m.Data), meta)
	case meta.Part == 1:
		h, err := ltxfile.ParseHeader(m.Data[:min(n, ltx.HeaderSize)])
		if err != nil {
			return err
		}
		if got := wire.MetaOf(h, ltx.Trailer{PostApplyChecksum: meta.Post}, meta.Size); !sameFile(got, meta) {
			return fmt.Errorf("%w: it begins at %s", ErrHeader, got.PrePos())
		}
	case meta.Part == meta.Parts:
		var t ltx.Trailer
		if err := t.UnmarshalBinary(m.Data[max(0, n-ltx.TrailerSize):]); err != nil {
			return fmt.Errorf("%w: trailer: %w", ltxfile.ErrDamaged, err)
		}
		if t.PostApplyChecksum != meta.Post {
			return fmt.Errorf("%w: it ends at checksum %s", ErrHeader, t.PostApplyChecksum)
		}
	}
	return nil
}

// sameFile compares what LTX file and message headers both say.
func sameFile(a, b wire.Meta) bool {
	return a.Min == b.Min && a.Max == b.Max && a.Timestamp.Equal(b.Timestamp) && a.Pre == b.Pre && a.Post == b.Post &&
		a.PageSize == b.PageSize && a.Commit == b.Commit && a.Size == b.Size
}

// FileOf is what the messages of one file have in common.
func FileOf(m wire.Meta) wire.Meta {
	m.Part, m.Base = 0, 0
	return m
}
