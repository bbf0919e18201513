package objstore

import (
	"context"
	"errors"
	"io"
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
	cancel context.CancelCauseFunc
	watch  *time.Timer // ends a read that takes too long
}

func (b *body) open() error {
	ctx, cancel := context.WithCancelCause(b.ctx)
	watch := time.AfterFunc(b.r.cfg.CallTimeout, func() { cancel(errCallTimeout) })
	cur, err := b.r.Store.Get(ctx, b.key, b.offset, b.size)
	watch.Stop()
	if err != nil {
		err = b.slow(ctx, err)
		cancel(nil)
		return err
	}
	b.cur, b.cancel, b.watch = cur, cancel, watch
	return nil
}

// slow marks the error of a try that we ended as temporary.
func (b *body) slow(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errCallTimeout) && b.ctx.Err() == nil {
		return Transient(errors.Join(errCallTimeout, err))
	}
	return err
}

func (b *body) Read(p []byte) (int, error) {
	if b.size == 0 || len(p) == 0 {
		return 0, eofIf(b.size == 0)
	}
	if b.size > 0 && int64(len(p)) > b.size {
		p = p[:b.size]
	}
	for {
		n, err := b.read(p)
		if n > 0 {
			b.offset += int64(n)
			if b.size > 0 {
				b.size -= int64(n)
			}
			b.a.progress()
		}
		switch {
		case err == nil || err == io.EOF: // itself: one that is wrapped tells of a broken connection
			return n, err
		case n > 0:
			return n, nil // and break again at the next read
		}
		if err = b.a.again(b.ctx, err); err != nil {
			return 0, err
		}
	}
}

func eofIf(end bool) error {
	if end {
		return io.EOF
	}
	return nil
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
	if !b.watch.Stop() && err != nil && b.ctx.Err() == nil {
		err = Transient(errors.Join(errCallTimeout, err))
	}
	if err != nil && err != io.EOF {
		b.drop()
	}
	return n, err
}

// drop closes a broken body; what it says of that adds nothing.
func (b *body) drop() {
	b.watch.Stop()
	_ = b.cur.Close()
	b.cancel(nil)
	b.cur = nil
}

func (b *body) Close() error {
	if b.cur == nil {
		return nil
	}
	b.watch.Stop()
	err := b.cur.Close()
	b.cancel(nil)
	b.cur = nil
	return err
}
