package gcs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net/http"

	"cloud.google.com/go/storage"
	"google.golang.org/api/googleapi"

	"github.com/ltxstream/ltxstream/objstore"
)

// Get costs one request. The checksum of an object that is read whole is
// compared at its end.
func (s *Store) Get(ctx context.Context, key string, offset, size int64) (io.ReadCloser, error) {
	if err := objstore.CheckKey(key); err != nil {
		return nil, err
	}
	if offset < 0 {
		return nil, fmt.Errorf("%w: get %s at offset %d", fs.ErrInvalid, key, offset)
	}
	if size == 0 { // the SDK would fetch the object
		if _, err := s.Stat(ctx, key); err != nil {
			return nil, err
		}
		return http.NoBody, nil
	}
	if size > math.MaxInt64-offset {
		size = -1
	}
	get := &aGet{}
	r, err := s.object(key).NewRangeReader(context.WithValue(ctx, getKey{}, get), offset, size)
	if answer, ok := errors.AsType[*googleapi.Error](err); ok && answer.Code == http.StatusRequestedRangeNotSatisfiable {
		return http.NoBody, nil // nothing at that offset
	}
	if err != nil {
		return nil, s.explain(ctx, "get", key, err)
	}
	return &body{s: s, ctx: ctx, key: key, get: get, r: r, left: length(r, offset, size)}, nil
}

// length is how many bytes a reader of [offset, offset+size) must yield; -1:
// the server did not say.
func length(r *storage.Reader, offset, size int64) int64 {
	if r.Attrs.Size < 0 || r.Attrs.Decompressed {
		return size
	}
	n := max(r.Attrs.Size-offset, 0)
	if size >= 0 {
		n = min(n, size)
	}
	return n
}

// body is the reader of one Get.
type body struct {
	s    *Store
	ctx  context.Context // of the Get: it bounds the reader too
	key  string
	get  *aGet
	r    *storage.Reader
	left int64 // to be read; -1: up to the end
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.left >= 0 {
		if int64(n) > b.left { // the server gave more than was asked for
			n, err = int(b.left), io.EOF
		}
		b.left -= int64(n)
	}
	if err != nil && b.left > 0 && b.get.broke == nil { // the SDK may say that the checksum is wrong
		err = io.ErrUnexpectedEOF
	}
	if err != nil && err != io.EOF && b.left == 0 && b.get.broke == nil { // all bytes came: the SDK does not like their checksum
		err = fmt.Errorf("%w: %w", objstore.ErrDamaged, err)
	}
	if err != nil && err != io.EOF {
		err = b.s.explain(b.ctx, "read", b.key, err)
	}
	return n, err
}

func (b *body) Close() error {
	_ = b.r.Close() // it repeats the error of the last Read
	return nil
}
