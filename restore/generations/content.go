package generations

import (
	"errors"
	"fmt"
	"io"

	"github.com/pierrec/lz4/v4"

	"github.com/ltxstream/ltxstream/objstore/levels"
)

// contents reads objects decompressed, in the order of their download.
type contents struct {
	fetch *fetch
	lz4   *lz4.Reader
	cur   *stored
	key   string // of cur
}

func newContents(f *fetch) *contents { return &contents{fetch: f, lz4: lz4.NewReader(nil)} }

// open goes to the next object. The one before must have been read to its end.
func (c *contents) open(o Object) {
	c.cur, c.key = &stored{fetch: c.fetch, left: o.pieces()}, o.Key
	c.lz4.Reset(newFrames(c.cur))
}

// Read reads of the object up to its end. What cannot be decompressed is a
// [levels.DamageError].
func (c *contents) Read(p []byte) (int, error) {
	n, err := c.lz4.Read(p)
	switch {
	case err == nil || err == io.EOF:
		return n, err
	case errors.Is(err, errEncrypted):
		return n, fmt.Errorf("read %s: %w", c.key, err)
	case c.cur.failed != nil:
		return n, fmt.Errorf("read %s: %w", c.key, c.cur.failed)
	}
	return n, &levels.DamageError{Key: c.key, Err: err}
}
