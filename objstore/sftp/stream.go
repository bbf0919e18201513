package sftp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/pkg/sftp"
)

// The window of an SSH channel is 2 MiB: more than that under way gains nothing.
const (
	readPiece   = 512 << 10
	readAhead   = 4 // pieces
	writeAtOnce = 2 // chunks of 1 MiB
)

// reader fetches pieces ahead of who reads.
type reader struct {
	ctx context.Context // of the Get: it bounds the reader too
	l   *link
	f   *sftp.File

	off, end int64 // not asked for yet
	ahead    []*piece
	rest     []byte // of the piece being read
	spare    [][]byte
	cur      []byte // the buffer of rest
	err      error
	closed   bool
}

type piece struct {
	done chan struct{}
	buf  []byte
	err  error
}

func (r *reader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	if len(p) == 0 {
		return 0, nil
	}
	for len(r.rest) == 0 {
		if err := r.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// next waits for the next piece.
func (r *reader) next() error {
	if r.cur != nil {
		r.spare, r.cur = append(r.spare, r.cur), nil
	}
	if r.err == nil {
		r.err = r.ask()
	}
	if r.err != nil {
		return r.err
	}
	if len(r.ahead) == 0 {
		return io.EOF
	}
	first := r.ahead[0]
	select {
	case <-first.done:
	case <-r.ctx.Done():
		return context.Cause(r.ctx)
	}
	r.ahead = r.ahead[1:]
	r.cur, r.rest, r.err = first.buf, first.buf, first.err
	if len(r.rest) == 0 {
		return r.err
	}
	return nil
}

// ask sends for pieces up to the end.
func (r *reader) ask() error {
	for len(r.ahead) < readAhead && r.off < r.end {
		off, n := r.off, min(readPiece, r.end-r.off)
		p := &piece{done: make(chan struct{}), buf: r.buffer(n)}
		if !r.l.pool.spawn(func() {
			defer close(p.done)
			n, err := readFull(r.f, p.buf, off)
			p.buf, p.err = p.buf[:n], r.l.explain(err)
		}) {
			return errClosed
		}
		r.off += n
		r.ahead = append(r.ahead, p)
	}
	return nil
}

func (r *reader) buffer(n int64) []byte {
	if i := len(r.spare) - 1; i >= 0 && int64(cap(r.spare[i])) >= n {
		b := r.spare[i]
		r.spare = r.spare[:i]
		return b[:n]
	}
	return make([]byte, n)
}

var errShort = fmt.Errorf("the file is shorter than it was when opened: %w", io.ErrUnexpectedEOF)

// readFull fills p. pkg/sftp takes any short answer for the end of the file.
func readFull(f *sftp.File, p []byte, off int64) (n int, err error) {
	for n < len(p) {
		m, err := f.ReadAt(p[n:], off+int64(n))
		n += m
		switch {
		case err == io.EOF && m == 0:
			return n, errShort
		case err != nil && err != io.EOF:
			return n, err
		}
	}
	return n, nil
}

func (r *reader) Close() error {
	if !r.closed {
		r.closed = true
		r.l.pool.spawn(func() { _ = r.f.Close() }) // it waits for the pieces under way
	}
	return nil
}

// writer sends chunks while the next one is read from the source.
type writer struct {
	l    *link
	f    *sftp.File
	name string
	off  int64
	// bufs are those at hand; a chunk under way has one of them.
	bufs chan []byte
	err  atomic.Pointer[error] // the first
}

func newWriter(l *link, f *sftp.File, name string) *writer {
	w := &writer{l: l, f: f, name: name, bufs: make(chan []byte, writeAtOnce)}
	for range writeAtOnce {
		w.bufs <- nil
	}
	return w
}

func (w *writer) Write(ctx context.Context, p []byte) error {
	buf, err := w.buffer(ctx)
	if err != nil {
		return err
	}
	buf = append(buf[:0], p...)
	off := w.off
	if !w.l.pool.spawn(func() {
		if _, err := w.f.WriteAt(buf, off); err != nil {
			err = w.l.explain(err)
			w.err.CompareAndSwap(nil, &err)
		}
		w.bufs <- buf
	}) {
		return errClosed
	}
	w.off += int64(len(p))
	return nil
}

// buffer waits until fewer than writeAtOnce chunks are under way.
func (w *writer) buffer(ctx context.Context) ([]byte, error) {
	select {
	case buf := <-w.bufs:
		if err := w.err.Load(); err != nil {
			return nil, *err
		}
		return buf, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (w *writer) Finish(ctx context.Context, mtime time.Time) error {
	for range writeAtOnce { // all are back: all is written
		if _, err := w.buffer(ctx); err != nil {
			w.Abort()
			return err
		}
	}
	_, err := run(ctx, w.l, func() (struct{}, error) {
		err := w.l.sftp.Chtimes(w.name, time.Now(), mtime)
		if _, ok := w.l.sftp.HasExtension(extFsync); ok && err == nil {
			err = w.f.Sync()
		}
		return struct{}{}, errors.Join(err, w.f.Close())
	}, nil)
	return err
}

func (w *writer) Abort() {
	w.l.pool.spawn(func() { _ = w.f.Close() })
}
