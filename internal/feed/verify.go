package feed

import (
	"fmt"

	"github.com/ltxstream/ltxstream/internal/ltxfile"
	"github.com/ltxstream/ltxstream/wire"
)

// verifier checks whole LTX files. It keeps its buffers: not for concurrent
// use.
type verifier struct{ files ltxfile.Verifier }

// verify reads the whole file: structure, file checksum, header and trailer
// equal to meta; a full file must hold every page and add up to its checksum.
// Errors wrap ErrContent or ErrHeader, unless reading itself failed.
func (v *verifier) verify(b *body, meta wire.Meta) error {
	c, err := v.files.Verify(b.section())
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

// sameFile compares what LTX file and message headers both say.
func sameFile(a, b wire.Meta) bool {
	return a.Min == b.Min && a.Max == b.Max && a.Timestamp.Equal(b.Timestamp) && a.Pre == b.Pre && a.Post == b.Post &&
		a.PageSize == b.PageSize && a.Commit == b.Commit && a.Size == b.Size
}
