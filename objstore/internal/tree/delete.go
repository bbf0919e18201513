package tree

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/ltxstream/ltxstream/objstore"
)

// deleteParallel is how many objects are removed at a time.
const deleteParallel = 16

// Delete removes the files one by one, then the directories that are empty.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	if len(keys) == 0 {
		return nil
	}
	if err := ended(ctx); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	s.sweep(ctx)
	d := deletion{s: s, dirs: map[string]bool{}}
	d.root = sync.OnceValue(func() error { return s.checkRoot(ctx) })
	var g errgroup.Group
	g.SetLimit(deleteParallel)
	for _, key := range keys {
		g.Go(func() error {
			removed, err := d.remove(ctx, key)
			d.note(key, removed, err)
			return nil
		})
	}
	_ = g.Wait() // the errors are in d
	for dir := range d.dirs {
		if err := s.fs.SyncDir(ctx, dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("delete: %w", err)
		}
		s.prune(ctx, dir)
	}
	return d.failed.Err()
}

type deletion struct {
	s    *Store
	root func() error // checked at most once

	mu     sync.Mutex
	failed *objstore.DeleteError
	dirs   map[string]bool // that something was removed from
}

func (d *deletion) note(key string, removed bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		d.failed = d.failed.Add(key, err)
	}
	if removed {
		d.dirs[path.Dir(d.s.path(key))] = true
	}
}

// remove removes one object, and then its metadata.
func (d *deletion) remove(ctx context.Context, key string) (removed bool, err error) {
	if err := checkKey(key); err != nil {
		return false, err
	}
	name := d.s.path(key)
	done, err := d.s.turn(ctx, name)
	if err != nil {
		return false, err
	}
	defer done()
	file, err := d.s.lstat(ctx, name)
	switch {
	case err != nil:
		return false, err
	case file == nil:
		return false, d.root()
	case !file.Mode().IsRegular():
		return false, nil // no object
	}
	if err := d.s.fs.Remove(ctx, name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	return true, d.s.removeMeta(ctx, metaPath(name, file.Size(), file.ModTime()))
}

// prune removes the directory if it is empty, and those above it, up to the
// root. A Put that wanted it makes it again.
func (s *Store) prune(ctx context.Context, dir string) {
	for ; dir != s.cfg.Root; dir = path.Dir(dir) {
		if s.fs.Rmdir(ctx, dir) != nil {
			return
		}
	}
}
