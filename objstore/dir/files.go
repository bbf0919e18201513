package dir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"
	"time"

	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/objstore/internal/tree"
)

// files is the local file system.
type files struct{}

// call runs one call of the system unless ctx has ended.
func call(ctx context.Context, f func() error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return explain(f())
}

// explain sorts the errors of the system.
func explain(err error) error {
	errno, ok := errors.AsType[syscall.Errno](err)
	if !ok {
		return err
	}
	switch errno {
	case syscall.ENOTDIR: // a file stands where a directory would be
		return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	case syscall.ENOSPC, syscall.EDQUOT:
		return fmt.Errorf("the disk is full: %w", err)
	case syscall.EMFILE, syscall.ENFILE, syscall.EINTR, syscall.EAGAIN, syscall.ESTALE, syscall.ETIMEDOUT:
		return objstore.Transient(err)
	}
	return err
}

func (files) Lstat(ctx context.Context, name string) (info fs.FileInfo, err error) {
	err = call(ctx, func() (err error) { info, err = os.Lstat(name); return err })
	return info, err
}

// entriesAtOnce are read between two looks at the context.
const entriesAtOnce = 4096

func (files) ReadDir(ctx context.Context, name string) (all []fs.DirEntry, err error) {
	var d *os.File
	if err := call(ctx, func() (err error) { d, err = os.Open(name); return err }); err != nil {
		return nil, err
	}
	defer d.Close()
	for {
		var some []fs.DirEntry
		err := call(ctx, func() (err error) { some, err = d.ReadDir(entriesAtOnce); return err })
		all = append(all, some...)
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

func (files) Open(ctx context.Context, name string, offset, size int64) (io.ReadCloser, error) {
	r := &reader{ctx: ctx}
	err := call(ctx, func() error {
		info, err := os.Lstat(name)
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() { // do not open what is no file: a pipe would block
			return &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
		r.f, err = os.Open(name)
		return err
	})
	if err != nil {
		return nil, err
	}
	if size < 0 {
		size = 1<<63 - 1 - offset
	}
	r.SectionReader = io.NewSectionReader(r.f, offset, size)
	return r, nil
}

// reader is a body; it ends with its context.
type reader struct {
	*io.SectionReader
	ctx context.Context
	f   *os.File
}

func (r *reader) Read(p []byte) (n int, err error) {
	err = call(r.ctx, func() (err error) { n, err = r.SectionReader.Read(p); return err })
	return n, err
}

func (r *reader) Close() error { return explain(r.f.Close()) }

func (files) Create(ctx context.Context, name string) (tree.File, error) {
	w := &writer{}
	err := call(ctx, func() (err error) {
		w.f, err = os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		return err
	})
	if err != nil {
		return nil, err
	}
	return w, nil
}

type writer struct{ f *os.File }

func (w *writer) Write(ctx context.Context, p []byte) error {
	return call(ctx, func() error { _, err := w.f.Write(p); return err })
}

func (w *writer) Finish(ctx context.Context, mtime time.Time) error {
	err := call(ctx, func() error {
		if err := os.Chtimes(w.f.Name(), time.Time{}, mtime); err != nil {
			return err
		}
		return w.f.Sync() // the time too
	})
	return errors.Join(err, explain(w.f.Close()))
}

func (w *writer) Abort() { _ = w.f.Close() }

func (files) Rename(ctx context.Context, from, to string) error {
	return call(ctx, func() error { return os.Rename(from, to) })
}

func (files) Link(ctx context.Context, from, to string) error {
	return call(ctx, func() error { return os.Link(from, to) })
}

// Remove is unlink(2): os.Remove would take a directory as well.
func (files) Remove(ctx context.Context, name string) error {
	return call(ctx, func() error { return pathError("remove", name, syscall.Unlink(name)) })
}

func (files) Rmdir(ctx context.Context, name string) error {
	return call(ctx, func() error { return pathError("rmdir", name, syscall.Rmdir(name)) })
}

func pathError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

func (d files) Mkdir(ctx context.Context, name string) error {
	if err := call(ctx, func() error { return os.Mkdir(name, 0o777) }); err != nil {
		return err
	}
	return d.SyncDir(ctx, path.Dir(name))
}

func (files) SyncDir(ctx context.Context, name string) error {
	return call(ctx, func() error {
		d, err := os.Open(name)
		if err != nil {
			return err
		}
		err = d.Sync()
		if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
			err = nil // the file system syncs no directories
		}
		return errors.Join(err, d.Close())
	})
}
