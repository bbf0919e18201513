package natsobj

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/ltxstream/ltxstream/objstore"
)

// errGone: the server does not have a chunk of an object whose meta was there.
var errGone = errors.New("some of its chunks are gone")

// Get asks the leader for the meta and any replica for the chunks: one request
// for each that the range touches, several at a time.
func (s *Store) Get(ctx context.Context, key string, offset, size int64) (io.ReadCloser, error) {
	if offset < 0 {
		return nil, named("get", key, fmt.Errorf("%w: negative offset %d", fs.ErrInvalid, offset))
	}
	o, err := s.find(ctx, key)
	if err != nil {
		return nil, named("get", key, err)
	}
	left := max(int64(o.Size)-offset, 0)
	if size >= 0 {
		left = min(left, size)
	}
	r := &reader{ctx: ctx, s: s, key: key, nuid: o.NUID, left: left}
	switch {
	case left == 0:
		r.src = none{}
	case o.places.stride == 0:
		r.src = s.openForeign(o, offset, left)
	default:
		r.src = s.openChunks(o, offset, left)
	}
	if left == int64(o.Size) && left > 0 {
		r.hash, r.digest = sha256.New(), o.Digest
	}
	return r, nil
}

// source yields the pieces of a range one after the other.
type source interface {
	next(ctx context.Context) ([]byte, error)
	close()
}

type none struct{}

func (none) next(context.Context) ([]byte, error) { return nil, io.ErrUnexpectedEOF }
func (none) close()                               {}

// reader is the body of one Get.
type reader struct {
	ctx    context.Context // of the Get: it bounds the reader too
	s      *Store
	key    string
	nuid   string // which object of that key
	src    source
	left   int64  // still to be returned
	piece  []byte // of the last chunk, not yet returned
	hash   hash.Hash
	digest string // what hash must come to; whole objects only
	err    error
}

func (r *reader) Read(p []byte) (n int, err error) {
	if r.err == nil {
		n, r.err = r.read(p)
	}
	return n, r.err
}

func (r *reader) read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, named("read", r.key, context.Cause(r.ctx))
	}
	if r.left == 0 {
		return 0, io.EOF
	}
	for len(r.piece) == 0 {
		piece, err := r.src.next(r.ctx)
		if errors.Is(err, errGone) {
			err = r.whyGone(err)
		}
		if err != nil {
			return 0, named("read", r.key, err)
		}
		r.piece = piece[:min(int64(len(piece)), r.left)]
	}
	n := copy(p, r.piece)
	r.piece, r.left = r.piece[n:], r.left-int64(n)
	if r.hash == nil {
		return n, nil
	}
	r.hash.Write(p[:n])
	if r.left == 0 && jetstream.GetObjectDigestValue(r.hash) != r.digest {
		return 0, named("read", r.key, fmt.Errorf("%w: its SHA-256 is not the one it was stored with", objstore.ErrDamaged))
	}
	return n, nil
}

// whyGone tells an object that was deleted while it was read, fs.ErrNotExist,
// from one that was replaced and one that lost chunks, objstore.ErrDamaged.
func (r *reader) whyGone(gone error) error {
	switch o, err := r.s.look(r.ctx, r.key); {
	case err != nil:
		return fmt.Errorf("%w, and why is not known: %w", gone, err)
	case !o.live():
		return fmt.Errorf("%w: it was deleted while it was read: %w", gone, fs.ErrNotExist)
	case o.NUID != r.nuid:
		return fmt.Errorf("%w: it was replaced while it was read", gone)
	}
	return fmt.Errorf("%w: %w", objstore.ErrDamaged, gone)
}

func (r *reader) Close() error {
	r.src.close()
	if r.err == nil {
		r.err = fs.ErrClosed
	}
	return nil
}
