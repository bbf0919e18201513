package tree

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"strings"

	"github.com/ltxstream/ltxstream/objstore"
)

// List reads the directories one by one as the listing comes to them, and none
// that can hold no key it is asked for.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		w := walk{s: s, prefix: prefix, after: after, yield: yield}
		if err := w.run(ctx); err != nil && !errors.Is(err, errStopped) {
			yield(objstore.Info{}, fmt.Errorf("list %q: %w", prefix, err))
		}
	}
}

var errStopped = errors.New("the consumer wants no more")

type walk struct {
	s             *Store
	prefix, after string
	yield         func(objstore.Info, error) bool
}

func (w *walk) run(ctx context.Context) error {
	top := w.prefix[:strings.LastIndexByte(w.prefix, '/')+1]
	if top != "" && checkKey(strings.TrimSuffix(top, "/")) != nil {
		return w.s.checkRoot(ctx) // nothing can be there
	}
	return w.dir(ctx, top)
}

// dir walks the directory of keys that begin with top ("" or with a slash at
// its end).
func (w *walk) dir(ctx context.Context, top string) error {
	entries, err := w.s.fs.ReadDir(ctx, w.s.path(top))
	if errors.Is(err, fs.ErrNotExist) { // nothing, or removed meanwhile; unless all is gone
		return w.s.checkRoot(ctx)
	}
	if err != nil {
		return err
	}
	w.s.seen.Store(true)
	w.s.noteDebris(w.s.path(top), entries)
	entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return !w.wants(top, e) })
	slices.SortFunc(entries, byKey)
	for _, e := range entries {
		if err := w.entry(ctx, top, e); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) entry(ctx context.Context, top string, e fs.DirEntry) error {
	if err := ended(ctx); err != nil {
		return err
	}
	if e.IsDir() {
		return w.dir(ctx, top+e.Name()+"/")
	}
	file, err := e.Info()
	if errors.Is(err, fs.ErrNotExist) {
		return nil // deleted meanwhile
	}
	if err != nil {
		return err
	}
	if !w.yield(w.s.info(top+e.Name(), file), nil) {
		return errStopped
	}
	return nil
}

// wants says whether the entry is an object of the listing, or a directory that
// may hold some.
func (w *walk) wants(top string, e fs.DirEntry) bool {
	if !e.IsDir() && !w.behind(top, e.Name()) {
		return false // most of a directory, for one who only asks what is new
	}
	key := top + e.Name()
	if checkKey(key) != nil {
		return false
	}
	if !e.IsDir() {
		return e.Type().IsRegular() && strings.HasPrefix(key, w.prefix)
	}
	key += "/"
	return (key > w.after || strings.HasPrefix(w.after, key)) &&
		(strings.HasPrefix(key, w.prefix) || strings.HasPrefix(w.prefix, key))
}

// behind reports whether top+name > after.
func (w *walk) behind(top, name string) bool {
	if rest, ok := strings.CutPrefix(w.after, top); ok {
		return name > rest
	}
	return top > w.after
}

// byKey orders the entries of a directory so that the keys of all that is in
// and below them are in order: a directory as its name with a slash, which is
// greater than '-' and '.'.
func byKey(a, b fs.DirEntry) int {
	x, y := a.Name(), b.Name()
	n := min(len(x), len(y))
	if c := strings.Compare(x[:n], y[:n]); c != 0 {
		return c
	}
	return cmp.Compare(next(a, n), next(b, n))
}

// next is the byte at i of the entry's name, with a directory's slash; -1
// behind the end.
func next(e fs.DirEntry, i int) int {
	switch name := e.Name(); {
	case i < len(name):
		return int(name[i])
	case e.IsDir():
		return '/'
	}
	return -1
}
