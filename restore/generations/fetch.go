package generations

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/restore"
)

// pieceSize is how much one request fetches at most, bytes.
const pieceSize = 2 << 20

// fetch downloads objects, several pieces at a time, for one reader that wants
// them in their order. It is ahead of the reader by two pieces for each request at
// a time: no more is in memory.
type fetch struct {
	store   objstore.Store
	queue   chan *piece // in the order of reading
	work    chan *piece
	tell    func(fetched int64)
	fetched atomic.Int64 // bytes

	ctx  context.Context // of the download
	stop context.CancelCauseFunc
	g    *errgroup.Group
}

// piece is a range of an object; data and err are there once done is closed.
type piece struct {
	object       Object
	offset, size int64
	done         chan struct{}
	data         []byte
	err          error
}

// goneError says that an object was listed, and is not there.
type goneError struct {
	key string
	err error
}

func (e *goneError) Error() string { return e.err.Error() }
func (e *goneError) Unwrap() error { return e.err }

// errUnread ends a download that nobody reads any more.
var errUnread = errors.New("no longer read")

// download begins; close ends it.
func download(ctx context.Context, store objstore.Store, objects []Object, opts restore.Options) *fetch {
	if opts.Parallelism <= 0 {
		opts.Parallelism = restore.DefaultParallelism
	}
	if opts.Progress == nil {
		opts.Progress = func(int64) {}
	}
	f := &fetch{store: store, queue: make(chan *piece, 2*opts.Parallelism), work: make(chan *piece), tell: opts.Progress, g: new(errgroup.Group)}
	f.ctx, f.stop = context.WithCancelCause(ctx)
	f.g.Go(func() error {
		defer close(f.work)
		for _, o := range objects {
			if !f.cut(o) {
				break
			}
		}
		return nil
	})
	for range opts.Parallelism {
		f.g.Go(func() error {
			for p := range f.work {
				p.data, p.err = f.get(p)
				close(p.done)
			}
			return nil
		})
	}
	return f
}

func (f *fetch) close() {
	f.stop(errUnread)
	_ = f.g.Wait() // errors are with the pieces
}

// pieces is how many an object has: one at least.
func (o Object) pieces() int64 { return max(1, (o.Size+pieceSize-1)/pieceSize) }

// cut hands the pieces of an object to the reader, and to those who fetch them; false:
// nobody wants them any more.
func (f *fetch) cut(o Object) bool {
	for i := range o.pieces() {
		p := &piece{object: o, offset: i * pieceSize, size: min(pieceSize, o.Size-i*pieceSize), done: make(chan struct{})}
		for _, to := range []chan<- *piece{f.queue, f.work} {
			select {
			case to <- p:
			case <-f.ctx.Done():
				return false
			}
		}
	}
	return true
}

// get fetches a piece.
func (f *fetch) get(p *piece) (data []byte, err error) {
	if p.size == 0 {
		return nil, nil
	}
	defer func() { err = levels.DamageOf(p.object.Key, err) }()
	r, err := f.store.Get(f.ctx, p.object.Key, p.offset, p.size)
	if errors.Is(err, fs.ErrNotExist) {
		err = &goneError{key: p.object.Key, err: err}
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	data = make([]byte, p.size)
	n, err := io.ReadFull(r, data)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = &levels.DamageError{Key: p.object.Key, Err: fmt.Errorf("it has %d bytes at %d, want %d", n, p.offset, p.size)}
	}
	if err != nil {
		return nil, err
	}
	f.tell(f.fetched.Add(p.size))
	return data, nil
}

// next waits for the next piece.
func (f *fetch) next() ([]byte, error) {
	ended := f.ctx.Done()
	select {
	case p := <-f.queue:
		select {
		case <-p.done:
			return p.data, p.err
		case <-ended:
		}
	case <-ended:
	}
	return nil, context.Cause(f.ctx)
}

// stored reads one object as it is stored.
type stored struct {
	fetch  *fetch
	left   int64 // pieces
	data   []byte
	failed error // of the download
}

func (s *stored) Read(p []byte) (int, error) {
	for len(s.data) == 0 {
		if s.failed != nil {
			return 0, s.failed
		}
		if s.left == 0 {
			return 0, io.EOF
		}
		s.data, s.failed = s.fetch.next()
		s.left--
	}
	n := copy(p, s.data)
	s.data = s.data[n:]
	return n, nil
}
