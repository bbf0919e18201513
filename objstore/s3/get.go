package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net/http"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/ltxstream/ltxstream/objstore"
)

// Get is one request; of a size of 0 it is [Store.Stat]'s. A whole object is
// checked against the checksum that S3 keeps with it, where it keeps one of
// the whole.
func (s *Store) Get(ctx context.Context, key string, offset, size int64) (io.ReadCloser, error) {
	what := s.what("get", key)
	if err := objstore.CheckKey(key); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if offset < 0 {
		return nil, fmt.Errorf("%s: %w: offset %d", what, fs.ErrInvalid, offset)
	}
	if size == 0 {
		if _, err := s.Stat(ctx, key); err != nil {
			return nil, err
		}
		return http.NoBody, nil
	}
	in := &s3.GetObjectInput{Bucket: &s.cfg.Bucket, Key: s.object(key), Range: byteRange(offset, size)}
	out, err := s.client.GetObject(ctx, in)
	if statusOf(err) == http.StatusRequestedRangeNotSatisfiable {
		return s.pastEnd(ctx, key, offset, err)
	}
	if err != nil {
		return nil, explain(ctx, what, err)
	}
	b := &body{ctx: ctx, what: what, r: out.Body, limit: size, left: -1}
	if out.ContentLength != nil {
		b.left = *out.ContentLength
	}
	if given := out.ContentRange; offset > 0 && (given == nil || !strings.HasPrefix(*given, fmt.Sprintf("bytes %d-", offset))) {
		_ = b.Close()
		return nil, fmt.Errorf("%s: the server did not give the range %s", what, *in.Range)
	}
	return b, nil
}

// byteRange is nil for all of the object.
func byteRange(offset, size int64) *string {
	switch {
	case size > 0 && size <= math.MaxInt64-offset:
		return new(fmt.Sprintf("bytes=%d-%d", offset, offset+size-1))
	case offset > 0:
		return new(fmt.Sprintf("bytes=%d-", offset))
	}
	return nil
}

// pastEnd answers for a range that S3 says the object does not have. It is
// looked at once more, for an empty reader is what ends a read of the object.
func (s *Store) pastEnd(ctx context.Context, key string, offset int64, err error) (io.ReadCloser, error) {
	info, serr := s.Stat(ctx, key)
	if serr != nil {
		return nil, serr
	}
	if offset < info.Size {
		return nil, fmt.Errorf("%s: offset %d of %d bytes: %w", s.what("get", key), offset, info.Size, err)
	}
	return http.NoBody, nil
}

// body is what a Get reads.
type body struct {
	ctx   context.Context
	what  string
	r     io.ReadCloser
	limit int64 // bytes to give at most; < 0: all
	left  int64 // bytes that the answer still has; < 0 from the start: unknown
}

func (b *body) Read(p []byte) (int, error) {
	if b.limit == 0 {
		return 0, io.EOF
	}
	if b.limit > 0 && int64(len(p)) > b.limit {
		p = p[:b.limit]
	}
	n, err := b.r.Read(p)
	known := b.left >= 0
	if b.limit > 0 {
		b.limit -= int64(n)
	}
	if known {
		b.left -= int64(n)
	}
	switch {
	case err == nil || err == io.EOF && (!known || b.left == 0):
		return n, err
	case b.ctx.Err() != nil:
		err = context.Cause(b.ctx)
	case known && b.left == 0: // all bytes came: the SDK does not like their checksum
		err = fmt.Errorf("%w: %w", objstore.ErrDamaged, err)
	case errors.Is(err, io.EOF):
		err = objstore.Transient(io.ErrUnexpectedEOF)
	default:
		err = objstore.Transient(err)
	}
	return n, fmt.Errorf("%s: %w", b.what, err)
}

// Close drops what was not read. What the connection says of that is no
// concern of one who has read what it wanted.
func (b *body) Close() error {
	_ = b.r.Close()
	return nil
}
