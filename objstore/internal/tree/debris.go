package tree

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"strings"
	"sync"
	"time"
)

const (
	// debrisAge is when a hidden file is nobody's any more.
	debrisAge = 24 * time.Hour
	maxDebris = 1000 // noted at a time
)

// debris are hidden files that are to go: temporaries that could not be removed
// at once, and what killed processes left, as listings find it. Put and Delete
// remove them: who only reads changes nothing.
type debris struct {
	mu    sync.Mutex
	names map[string]bool
}

func (d *debris) add(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.names == nil {
		d.names = map[string]bool{}
	}
	if len(d.names) < maxDebris {
		d.names[name] = true
	}
}

func (d *debris) take() (names map[string]bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	names, d.names = d.names, nil
	return names
}

// discard removes a hidden file. A temporary that stays is tried again later;
// nobody else will ever have its name.
func (s *Store) discard(ctx context.Context, name string) {
	err := s.fs.Remove(ctx, name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && isTemp(path.Base(name)) {
		s.debris.add(name)
	}
}

// sweep removes what was noted. What does not go is found again.
func (s *Store) sweep(ctx context.Context) {
	for name := range s.debris.take() {
		if !isTemp(path.Base(name)) { // may have come into use again
			if info, err := s.lstat(ctx, name); err != nil || info == nil || time.Since(info.ModTime()) < debrisAge {
				continue
			}
		}
		if s.fs.Remove(ctx, name) == nil {
			s.prune(ctx, path.Dir(name))
		}
	}
}

// noteDebris looks for debris among the entries of a directory.
func (s *Store) noteDebris(dir string, entries []fs.DirEntry) {
	var names map[string]bool // when needed
	has := func(name string) bool {
		if names == nil {
			names = make(map[string]bool, len(entries))
			for _, e := range entries {
				names[e.Name()] = true
			}
		}
		return names[name]
	}
	for _, e := range entries {
		if e.Type().IsRegular() && ownerless(e.Name(), has) {
			if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > debrisAge {
				s.debris.add(path.Join(dir, e.Name()))
			}
		}
	}
}

// ownerless says whether a file is one of our hidden ones that, once old, is
// nobody's. A temporary has to be old by its name too: near its end it bears
// the object's time.
func ownerless(name string, has func(name string) bool) bool {
	switch {
	case isTemp(name):
		made, ok := tempTime(name)
		return ok && time.Since(made) > debrisAge
	case !strings.HasPrefix(name, "."):
		return false
	case strings.HasSuffix(name, claimSuffix):
		return true
	}
	owner, ok := metaOwner(name)
	return ok && !has(owner)
}
