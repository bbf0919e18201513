package objstore

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"time"
)

func (r *retrier) Get(ctx context.Context, key string, offset, size int64) (io.ReadCloser, error) {
	b := &body{r: r, ctx: ctx, key: key, offset: offset, size: size, a: r.attempts("get")}
	for {
		err := b.open()
		if err == nil {
			return b, nil
		}
		if err = b.a.again(ctx, err); err != nil {
			return nil, err
		}
	}
}

// body is the reader of one Get, opened again where it breaks off. Like every
// reader it belongs to one goroutine.
type body struct {
	r            *retrier
	ctx          context.Context // of the Get: it bounds the reader too
	key          string
	offset, size int64 // what is still to be read; size < 0: up to the end
	a            *attempts

	cur    io.ReadCloser // nil: broken off
	try    context.Context
	cancel context.CancelCauseFunc // of try
	watch  *time.Timer             // ends a read that takes too long

	broke error // of the last read: to be tried again or returned by the next
	end   error // of every further read
}

func (b *body) open() error {
	b.try, b.cancel = context.WithCancelCause(b.ctx)
	cancel := b.cancel
	b.watch = time.AfterFunc(b.r.cfg.CallTimeout, func() { cancel(errCallTimeout) })
	cur, err := b.r.Store.Get(b.try, b.key, b.offset, b.size)
	b.watch.Stop()
	if err != nil {
		err = b.slow(err)
		b.cancel(nil)
		return err
	}
	b.cur = cur
	return nil
}

// slow marks the error of a try that we ended as temporary.
func (b *body) slow(err error) error {
	if errors.Is(context.Cause(b.try), errCallTimeout) && b.ctx.Err() == nil {
		return Transient(errors.Join(errCallTimeout, err))
	}
	return err
}

func (b *body) Read(p []byte) (int, error) {
	switch {
	case b.end != nil:
		return 0, b.end
	case b.size == 0:
		return 0, io.EOF
	case len(p) == 0:
		return 0, nil
	case b.size > 0 && int64(len(p)) > b.size:
		p = p[:b.size]
	}
	for {
		if b.broke != nil {
			if b.end = b.a.again(b.ctx, b.broke); b.end != nil {
				return 0, b.end
			}
			b.broke = nil
		}
		n, err := b.read(p)
		if n > 0 {
			b.a.progress()
		}
		switch {
		case err == io.EOF: // bare: a lost connection may wrap io.EOF too
			b.end = err
			return n, err
		case err != nil:
			b.broke = err
		}
		if n > 0 || err == nil {
			return n, nil
		}
	}
}

// read reads once, from a new body where the last one broke.
func (b *body) read(p []byte) (n int, err error) {
	if b.cur == nil {
		if err := b.open(); err != nil {
			return 0, err
		}
	}
	b.watch.Reset(b.r.cfg.CallTimeout)
	n, err = b.cur.Read(p)
	b.watch.Stop()
	b.offset += int64(n)
	if b.size > 0 {
		b.size -= int64(n)
	}
	if err != nil && err != io.EOF {
		err = b.slow(err)
		_ = b.close() // it is broken: what it says adds nothing
	}
	return n, err
}

func (b *body) close() error {
	if b.cur == nil {
		return nil
	}
	err := b.cur.Close()
	b.cancel(nil)
	b.cur = nil
	return err
}

func (b *body) Close() error {
	b.end = fs.ErrClosed
	return b.close()
}
