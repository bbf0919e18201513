package tree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"sync"
	"time"

	"github.com/ltxstream/ltxstream/objstore"
)

const (
	// chunk is what is read, and checked against the context, at a time.
	chunk = 1 << 20
	// finishTimeout bounds the steps that make an object visible, which the end
	// of the caller's context does not interrupt, and tidyTimeout the removal of
	// what a failed Put leaves.
	finishTimeout = 30 * time.Second
	tidyTimeout   = 2 * time.Second
	// dirTries is how often a Put makes a directory that is removed under it.
	dirTries = 20
)

var chunks = sync.Pool{New: func() any { return new([chunk]byte) }}

// Put writes a temporary file and gives it the name of the object.
func (s *Store) Put(ctx context.Context, key string, r io.Reader, opts objstore.PutOptions) (objstore.Info, error) {
	info, err := s.put(ctx, key, r, opts)
	if err != nil {
		return objstore.Info{}, fmt.Errorf("put %s: %w", key, err)
	}
	return info, nil
}

func (s *Store) put(ctx context.Context, key string, r io.Reader, opts objstore.PutOptions) (objstore.Info, error) {
	if err := objstore.CheckPut(key, opts); err != nil {
		return objstore.Info{}, err
	}
	if err := checkKey(key); err != nil {
		return objstore.Info{}, err
	}
	if err := ended(ctx); err != nil {
		return objstore.Info{}, err
	}
	s.sweep(ctx)
	u := upload{s: s, name: s.path(key), mtime: stamp(opts.Timestamp), meta: opts.Meta}
	if opts.IfAbsent { // spare the upload; the answer that counts comes at its end
		if err := u.taken(ctx); err != nil {
			return objstore.Info{}, err
		}
	}
	err := u.write(ctx, r)
	if err == nil {
		err = u.show(ctx, opts.IfAbsent)
	}
	if err != nil {
		u.discard(ctx)
		return objstore.Info{}, err
	}
	return objstore.Info{Key: key, Size: u.size, Timestamp: u.mtime, Coarse: s.cfg.Coarse, Meta: opts.Meta}, nil
}

// upload is one Put.
type upload struct {
	s     *Store
	name  string // of the object
	mtime time.Time
	meta  map[string]string

	temp string // "": none, or it has become the object
	size int64
}

// write fills the temporary.
func (u *upload) write(ctx context.Context, r io.Reader) error {
	f, err := u.create(ctx)
	if err != nil {
		return err
	}
	if err := u.fill(ctx, f, r); err != nil {
		f.Abort()
		return err
	}
	u.s.cfg.Step("written")
	if err := f.Finish(ctx, u.mtime); err != nil {
		return err
	}
	u.s.cfg.Step("synced")
	return nil
}

// create makes the temporary, and its directory where that is missing or goes
// away between the two.
func (u *upload) create(ctx context.Context) (File, error) {
	temp := path.Join(path.Dir(u.name), tempName(time.Now()))
	for try := 1; ; try++ {
		u.temp = temp
		f, err := u.s.fs.Create(ctx, temp)
		if err == nil {
			u.s.seen.Store(true)
			u.s.cfg.Step("created")
			return f, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		u.temp = ""
		if try == dirTries {
			return nil, objstore.Transient(fmt.Errorf("directory %s does not stay", path.Dir(u.name)))
		}
		if err := u.s.makeDir(ctx, path.Dir(u.name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
}

func (u *upload) fill(ctx context.Context, f File, r io.Reader) error {
	buf := chunks.Get().(*[chunk]byte)
	defer chunks.Put(buf)
	for {
		n, err := readChunk(r, buf[:])
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if n > 0 {
			if err := f.Write(ctx, buf[:n]); err != nil {
				return err
			}
			u.size += int64(n)
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

// readChunk fills p. Unlike io.ReadFull it leaves the reader's error as it is:
// an io.ErrUnexpectedEOF of its own must not pass for the end.
func readChunk(r io.Reader, p []byte) (n int, err error) {
	for empty := 0; n < len(p) && err == nil; {
		var m int
		m, err = r.Read(p[n:])
		n += m
		if empty++; m > 0 {
			empty = 0
		} else if empty == 100 && err == nil {
			err = io.ErrNoProgress
		}
	}
	return n, err
}

// show makes the object visible. It is not interrupted half-way: who learns
// that the context ended must find nothing there.
func (u *upload) show(ctx context.Context, ifAbsent bool) error {
	done, err := u.s.turn(ctx, u.name)
	if err != nil {
		return err
	}
	defer done()
	if err := ended(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), finishTimeout, errSlow)
	defer cancel()

	old, err := u.makeRoom(ctx)
	if err != nil {
		return err
	}
	if ifAbsent && old != nil {
		return fs.ErrExist
	}
	if err := u.s.writeMeta(ctx, u); err != nil {
		return err
	}
	u.s.cfg.Step("described")
	if ifAbsent {
		err = u.nameIfAbsent(ctx)
	} else {
		err = u.rename(ctx)
	}
	if err != nil {
		u.undescribe(ctx, old, err)
		return err
	}
	u.s.cfg.Step("visible")
	if err := u.s.fs.SyncDir(ctx, path.Dir(u.name)); err != nil && !errors.Is(err, fs.ErrNotExist) { // deleted already
		return err
	}
	u.s.cfg.Step("lasting")
	u.discard(ctx) // the first name of what was linked
	if old != nil {
		if m := metaPath(u.name, old.Size(), old.ModTime()); m != metaPath(u.name, u.size, u.mtime) {
			u.s.discard(ctx, m)
		}
	}
	u.s.cfg.Step("tidy")
	return nil
}

// errSlow is temporary by itself.
var errSlow = objstore.Transient(errors.New("the file system does not answer"))

// makeRoom returns the file that is there under the object's name. An empty
// directory that deletions left makes room.
func (u *upload) makeRoom(ctx context.Context) (fs.FileInfo, error) {
	old, err := u.s.lstat(ctx, u.name)
	if err != nil || old == nil {
		return nil, err
	}
	if !old.IsDir() {
		return old, nil
	}
	if err := u.s.fs.Rmdir(ctx, u.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is a directory that holds other objects: %w", u.name, err)
	}
	return nil, nil
}

func (u *upload) rename(ctx context.Context) error {
	err := u.s.fs.Rename(ctx, u.temp, u.name)
	if err == nil {
		u.temp = ""
	}
	return err
}

// taken is fs.ErrExist where the object exists.
func (u *upload) taken(ctx context.Context) error {
	file, err := u.s.lstat(ctx, u.name)
	if err == nil && file != nil && file.Mode().IsRegular() {
		return fs.ErrExist
	}
	return err
}

// nameIfAbsent gives the temporary the object's name unless that is taken: by a
// second link, which the file system grants to one only.
func (u *upload) nameIfAbsent(ctx context.Context) error {
	err := u.s.fs.Link(ctx, u.temp, u.name)
	if err == nil || errors.Is(err, objstore.ErrTransient) {
		return err
	}
	if err := u.taken(ctx); err != nil {
		return err
	}
	return u.nameByClaim(ctx) // no hard links here: vfat, some servers
}

// claimPause is between two looks at another one's claim.
const claimPause = 20 * time.Millisecond

// nameByClaim renames under a claim, a file that one process can create, so
// that none of those who want the object absent comes between look and rename.
func (u *upload) nameByClaim(ctx context.Context) error {
	claim := claimPath(u.name)
	if err := u.claim(ctx, claim); err != nil {
		return err
	}
	defer u.s.discard(ctx, claim)
	if err := u.taken(ctx); err != nil {
		return err
	}
	return u.rename(ctx)
}

// claim waits until it has the claim or the object exists.
func (u *upload) claim(ctx context.Context, name string) error {
	for free := 0; ; {
		f, err := u.s.fs.Create(ctx, name)
		if err == nil {
			f.Abort()
			return nil
		}
		if errors.Is(err, objstore.ErrTransient) || errors.Is(err, fs.ErrPermission) {
			return err
		}
		if err := u.taken(ctx); err != nil {
			return err
		}
		held, errStat := u.s.lstat(ctx, name)
		if errStat != nil {
			return errStat
		}
		if held != nil {
			free = 0
		} else if free++; free == 3 { // it was not for a claim that is gone by now
			return err
		}
		select {
		case <-ctx.Done():
			return objstore.Transient(fmt.Errorf("another Put holds %s", name))
		case <-time.After(claimPause):
		}
	}
}

// discard removes the temporary, even after the end of the context.
func (u *upload) discard(ctx context.Context) {
	if u.temp == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyTimeout)
	defer cancel()
	u.s.discard(ctx, u.temp)
	u.temp = ""
}
