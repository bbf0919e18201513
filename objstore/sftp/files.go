package sftp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/pkg/sftp"

	"github.com/ltxstream/ltxstream/objstore/internal/tree"
)

// Extensions of OpenSSH.
const (
	extHardlink    = "hardlink@openssh.com"
	extPosixRename = "posix-rename@openssh.com"
	extFsync       = "fsync@openssh.com"
)

// files is the file system of the server.
type files struct{ pool *pool }

// do runs a call that returns an error alone.
func (f files) do(ctx context.Context, call func(*sftp.Client) error) error {
	_, err := ask(ctx, f.pool, func(c *sftp.Client) (struct{}, error) { return struct{}{}, call(c) })
	return err
}

// ask runs a call whose result needs no care.
func ask[T any](ctx context.Context, p *pool, call func(*sftp.Client) (T, error)) (T, error) {
	l, err := p.get(ctx)
	if err != nil {
		var zero T
		return zero, err
	}
	return run(ctx, l, func() (T, error) { return call(l.sftp) }, nil)
}

func (f files) Lstat(ctx context.Context, name string) (fs.FileInfo, error) {
	return ask(ctx, f.pool, func(c *sftp.Client) (fs.FileInfo, error) { return c.Lstat(name) })
}

func (f files) ReadDir(ctx context.Context, name string) ([]fs.DirEntry, error) {
	return ask(ctx, f.pool, func(c *sftp.Client) ([]fs.DirEntry, error) {
		infos, err := c.ReadDir(name)
		if err != nil {
			return nil, err
		}
		entries := make([]fs.DirEntry, len(infos))
		for i, info := range infos {
			entries[i] = fs.FileInfoToDirEntry(info)
		}
		return entries, nil
	})
}

func (f files) Open(ctx context.Context, name string, offset, size int64) (io.ReadCloser, error) {
	l, err := f.pool.get(ctx)
	if err != nil {
		return nil, err
	}
	r := &reader{ctx: ctx, l: l, off: offset}
	r.f, err = run(ctx, l, func() (*sftp.File, error) {
		file, end, err := openRegular(l.sftp, name)
		r.end = end
		return file, err
	}, func(f *sftp.File) { _ = f.Close() })
	if err != nil {
		return nil, err
	}
	if size >= 0 && size < r.end-offset {
		r.end = offset + size
	}
	return r, nil
}

// openRegular returns the file and its size.
func openRegular(c *sftp.Client, name string) (*sftp.File, int64, error) {
	f, err := c.Open(name)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%w: %s is no file", fs.ErrNotExist, name)
	}
	if err != nil {
		_ = f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

func (f files) Create(ctx context.Context, name string) (tree.File, error) {
	l, err := f.pool.get(ctx)
	if err != nil {
		return nil, err
	}
	file, err := run(ctx, l, func() (*sftp.File, error) {
		return l.sftp.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	}, func(f *sftp.File) { _ = f.Close() })
	if err != nil {
		return nil, err
	}
	return newWriter(l, file, name), nil
}

// Rename needs the extension to replace a file; the protocol's own must not.
func (f files) Rename(ctx context.Context, from, to string) error {
	return f.do(ctx, func(c *sftp.Client) error {
		if _, ok := c.HasExtension(extPosixRename); ok {
			return c.PosixRename(from, to)
		}
		if _, err := c.Lstat(to); err == nil {
			return fmt.Errorf("%w: replace %s: the server has no %s", errors.ErrUnsupported, to, extPosixRename)
		}
		return c.Rename(from, to)
	})
}

func (f files) Link(ctx context.Context, from, to string) error {
	return f.do(ctx, func(c *sftp.Client) error {
		if _, ok := c.HasExtension(extHardlink); !ok {
			return fmt.Errorf("%w: the server has no %s", errors.ErrUnsupported, extHardlink)
		}
		return c.Link(from, to)
	})
}

func (f files) Remove(ctx context.Context, name string) error {
	return f.do(ctx, func(c *sftp.Client) error { return c.Remove(name) })
}

// Mkdir makes out whether the name was taken, which the protocol does not say.
func (f files) Mkdir(ctx context.Context, name string) error {
	return f.do(ctx, func(c *sftp.Client) error {
		err := c.Mkdir(name)
		if status, ok := errors.AsType[*sftp.StatusError](err); !ok || status.FxCode() != sftp.ErrSSHFxFailure {
			return err
		}
		if _, errStat := c.Lstat(name); errStat == nil {
			return fmt.Errorf("%w: %w", fs.ErrExist, err)
		}
		return c.Mkdir(name) // taken, and free again
	})
}

func (f files) Rmdir(ctx context.Context, name string) error {
	return f.do(ctx, func(c *sftp.Client) error { return c.RemoveDirectory(name) })
}

// SyncDir does nothing: the protocol cannot.
func (files) SyncDir(context.Context, string) error { return nil }
