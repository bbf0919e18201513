package tree

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"time"

	"github.com/ltxstream/ltxstream/objstore"
)

// sidecar is the file that holds the metadata of an object.
type sidecar struct {
	Timestamp time.Time         `json:"timestamp"` // of the object, in milliseconds
	Meta      map[string]string `json:"meta"`
}

// maxSidecar bounds what is read of one.
const maxSidecar = 64 << 10

// readMeta returns the metadata that belongs to the file, nil where none does.
func (s *Store) readMeta(ctx context.Context, name string, file fs.FileInfo) (meta map[string]string, err error) {
	sidecarName := metaPath(name, file.Size(), file.ModTime())
	r, err := s.fs.Open(ctx, sidecarName, 0, maxSidecar)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	var c sidecar
	if err := json.Unmarshal(b, &c); err != nil {
		return nil, fmt.Errorf("metadata in %s: %w", sidecarName, err)
	}
	if !c.describes(file) {
		return nil, nil
	}
	return c.Meta, nil
}

// describes says whether the file has the sidecar's time, and not that of an
// older or newer one in the same second. It may have whole seconds alone.
func (c sidecar) describes(file fs.FileInfo) bool {
	mtime := stamp(file.ModTime())
	return c.Timestamp.Equal(mtime) || c.Timestamp.Truncate(time.Second).Equal(mtime)
}

// writeMeta puts the metadata where the upload's object will look for it. What
// an older object of the same size and second left there goes.
func (s *Store) writeMeta(ctx context.Context, u *upload) error {
	name := metaPath(u.name, u.size, u.mtime)
	if len(u.meta) == 0 {
		return s.removeMeta(ctx, name)
	}
	b, err := json.Marshal(sidecar{Timestamp: u.mtime, Meta: u.meta})
	if err != nil {
		return err
	}
	temp := path.Join(path.Dir(name), tempName(time.Now()))
	f, err := s.fs.Create(ctx, temp)
	if err == nil {
		if err = f.Write(ctx, b); err != nil {
			f.Abort()
		} else if err = f.Finish(ctx, time.Now()); err == nil {
			err = s.fs.Rename(ctx, temp, name)
		}
	}
	if err != nil {
		s.discard(ctx, temp)
	}
	return err
}

// removeMeta looks first: mostly there is nothing to remove.
func (s *Store) removeMeta(ctx context.Context, name string) error {
	file, err := s.lstat(ctx, name)
	if err != nil || file == nil {
		return err
	}
	if err := s.fs.Remove(ctx, name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// undescribe removes the metadata of an object that did not become visible
// because of err, unless the one that is there shares it.
func (u *upload) undescribe(ctx context.Context, old fs.FileInfo, err error) {
	name := metaPath(u.name, u.size, u.mtime)
	switch {
	case len(u.meta) == 0, errors.Is(err, objstore.ErrTransient): // it may be visible
	case errors.Is(err, fs.ErrExist): // the winner's may be the same file
	case old != nil && metaPath(u.name, old.Size(), old.ModTime()) == name:
	default:
		u.s.discard(ctx, name)
	}
}
