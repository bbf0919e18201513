package tree

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"path"
	"sync/atomic"
	"time"

	"github.com/ltxstream/ltxstream/objstore"
)

// Config of a Store.
type Config struct {
	FS   FS
	Root string // directory of the store
	URL  string // for people, without credentials
	// Create makes the root directory, and those above it, at the first call.
	// Without it only a Put does, and only where its parent exists.
	Create bool
	Coarse time.Duration // of the modification times, see objstore.Info
	// Step, of tests, is called when a step of a Put that lasts is done.
	Step func(step string)
}

// Store is an [objstore.Store] on a file system.
type Store struct {
	cfg    Config
	fs     FS
	seen   atomic.Bool // the root directory: it is not made a second time
	debris debris
	// turns are of those who change one object; names share them by hash.
	turns [64]chan struct{}
	seed  maphash.Seed
}

var _ objstore.Store = (*Store)(nil)

// New costs no call of the file system.
func New(cfg Config) *Store {
	if cfg.Step == nil {
		cfg.Step = func(string) {}
	}
	s := &Store{cfg: cfg, fs: cfg.FS, seed: maphash.MakeSeed()}
	for i := range s.turns {
		s.turns[i] = make(chan struct{}, 1)
	}
	return s
}

func (s *Store) String() string { return s.cfg.URL }

// Close does nothing: what the file system holds is its owner's.
func (s *Store) Close() error { return nil }

// path of a key, or of the directory named by a prefix that ends in a slash.
func (s *Store) path(key string) string { return path.Join(s.cfg.Root, key) }

// turn waits until nobody else of this process changes the object.
func (s *Store) turn(ctx context.Context, name string) (done func(), err error) {
	c := s.turns[maphash.String(s.seed, name)%uint64(len(s.turns))]
	select {
	case c <- struct{}{}:
		return func() { <-c }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// ended is the cause of a context that has ended.
func ended(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return context.Cause(ctx)
}

// lstat returns nil, without an error, where no file is.
func (s *Store) lstat(ctx context.Context, name string) (fs.FileInfo, error) {
	info, err := s.fs.Lstat(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return info, err
}

// missing is the error of an object that was not found: it does not exist, or
// nothing does.
func (s *Store) missing(ctx context.Context) error {
	if err := s.checkRoot(ctx); err != nil {
		return err
	}
	return fs.ErrNotExist
}

// checkRoot fails where the root directory is missing and may not be made.
func (s *Store) checkRoot(ctx context.Context) error {
	info, err := s.lstat(ctx, s.cfg.Root+"/.") // "/.": through a symbolic link
	switch {
	case err != nil:
		return err
	case info != nil:
		s.seen.Store(true)
		return nil
	case s.cfg.Create:
		return s.makeRoot(ctx)
	}
	return s.noRoot()
}

// noRoot deliberately is not fs.ErrNotExist.
func (s *Store) noRoot() error {
	if s.seen.Load() {
		return fmt.Errorf("directory %s is gone, it was there before: mount it again", s.cfg.Root)
	}
	return fmt.Errorf("directory %s does not exist: create it if the archive is new, mount it if it is not", s.cfg.Root)
}

func (s *Store) makeRoot(ctx context.Context) error {
	if s.seen.Load() {
		return s.noRoot()
	}
	err := s.fs.Mkdir(ctx, s.cfg.Root)
	if errors.Is(err, fs.ErrNotExist) {
		if !s.cfg.Create {
			return s.noRoot()
		}
		if err = s.makeAbove(ctx, path.Dir(s.cfg.Root)); err == nil {
			err = s.fs.Mkdir(ctx, s.cfg.Root)
		}
	}
	return s.madeDir(ctx, s.cfg.Root, err)
}

func (s *Store) makeAbove(ctx context.Context, dir string) error {
	err := s.fs.Mkdir(ctx, dir)
	if errors.Is(err, fs.ErrNotExist) && dir != path.Dir(dir) {
		if err = s.makeAbove(ctx, path.Dir(dir)); err == nil {
			err = s.fs.Mkdir(ctx, dir)
		}
	}
	return s.madeDir(ctx, dir, err)
}

// makeDir makes a directory of the store and those above it.
func (s *Store) makeDir(ctx context.Context, dir string) error {
	if dir == s.cfg.Root {
		if info, err := s.lstat(ctx, dir+"/."); err != nil || info != nil {
			return err // what was missing went away below it
		}
		return s.makeRoot(ctx)
	}
	err := s.fs.Mkdir(ctx, dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err = s.makeDir(ctx, path.Dir(dir)); err == nil {
			err = s.fs.Mkdir(ctx, dir)
		}
	}
	return s.madeDir(ctx, dir, err)
}

// madeDir takes the error of a Mkdir away where the directory is there. It is
// fs.ErrNotExist where that was there and has been removed.
func (s *Store) madeDir(ctx context.Context, dir string, err error) error {
	if err == nil || errors.Is(err, objstore.ErrTransient) || ctx.Err() != nil {
		return err
	}
	if info, errStat := s.lstat(ctx, dir+"/."); errStat == nil && info != nil && info.IsDir() {
		return nil
	}
	if info, errStat := s.lstat(ctx, dir); errStat == nil && info != nil {
		return fmt.Errorf("%s is a file: nothing can be kept below it", dir)
	}
	if errors.Is(err, fs.ErrExist) {
		return fs.ErrNotExist
	}
	return err
}

// Get reads the file.
func (s *Store) Get(ctx context.Context, key string, offset, size int64) (io.ReadCloser, error) {
	body, err := s.get(ctx, key, offset, size)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	return body, nil
}

func (s *Store) get(ctx context.Context, key string, offset, size int64) (io.ReadCloser, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	if offset < 0 {
		return nil, fmt.Errorf("%w: offset %d", fs.ErrInvalid, offset)
	}
	body, err := s.fs.Open(ctx, s.path(key), offset, size)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, s.missing(ctx)
	}
	return body, err
}

// Stat looks at the file and its metadata.
func (s *Store) Stat(ctx context.Context, key string) (objstore.Info, error) {
	info, err := s.stat(ctx, key)
	if err != nil {
		return objstore.Info{}, fmt.Errorf("stat %s: %w", key, err)
	}
	return info, nil
}

func (s *Store) stat(ctx context.Context, key string) (objstore.Info, error) {
	if err := checkKey(key); err != nil {
		return objstore.Info{}, err
	}
	name := s.path(key)
	file, err := s.fs.Lstat(ctx, name)
	for err == nil && file.Mode().IsRegular() {
		info := s.info(key, file)
		info.Meta, err = s.readMeta(ctx, name, file)
		if err != nil || info.Meta != nil {
			return info, err
		}
		// None, or it went with the object, which has been replaced: look again.
		was := file
		if file, err = s.fs.Lstat(ctx, name); err == nil && same(was, file) {
			return info, nil
		}
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = s.missing(ctx)
	}
	return objstore.Info{}, err
}

func same(a, b fs.FileInfo) bool {
	return a.Mode() == b.Mode() && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

func (s *Store) info(key string, file fs.FileInfo) objstore.Info {
	return objstore.Info{
		Key: key, Size: file.Size(),
		Timestamp: stamp(file.ModTime()), Coarse: s.cfg.Coarse,
		Modified: file.ModTime().UTC(), // the only time that a file has
	}
}

// stamp is a time as objects keep it.
func stamp(t time.Time) time.Time { return time.UnixMilli(t.UnixMilli()).UTC() }
