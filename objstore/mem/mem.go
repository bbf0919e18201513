package mem

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ltxstream/ltxstream/objstore"
)

// Store is an [objstore.Store]. The zero value is empty and ready; it must not
// be copied.
type Store struct {
	mu struct {
		sync.RWMutex
		objects map[string]object
	}
}

type object struct {
	body []byte // never changed
	info objstore.Info
}

// New returns an empty store.
func New() *Store { return new(Store) }

// Put implements [objstore.Store]; it holds the whole body in memory.
func (s *Store) Put(ctx context.Context, key string, r io.Reader, opts objstore.PutOptions) (objstore.Info, error) {
	if err := objstore.CheckPut(key, opts); err != nil {
		return objstore.Info{}, err
	}
	if err := ended(ctx); err != nil {
		return objstore.Info{}, fmt.Errorf("put %s: %w", key, err)
	}
	body, err := io.ReadAll(r)
	if err == nil {
		err = ended(ctx)
	}
	if err != nil {
		return objstore.Info{}, fmt.Errorf("put %s: %w", key, err)
	}
	o := object{body: body, info: objstore.Info{
		Key: key, Size: int64(len(body)),
		Timestamp: opts.Timestamp.Truncate(time.Millisecond).UTC(),
		Modified:  time.Now().UTC(),
		Meta:      maps.Clone(opts.Meta),
	}}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, taken := s.mu.objects[key]; taken && opts.IfAbsent {
		return objstore.Info{}, fmt.Errorf("put %s: %w", key, fs.ErrExist)
	}
	if s.mu.objects == nil {
		s.mu.objects = map[string]object{}
	}
	s.mu.objects[key] = o
	return o.info, nil
}

func (s *Store) object(ctx context.Context, op, key string) (object, error) {
	if err := ended(ctx); err != nil {
		return object{}, fmt.Errorf("%s %s: %w", op, key, err)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	o, ok := s.mu.objects[key]
	if !ok {
		return object{}, fmt.Errorf("%s %s: %w", op, key, fs.ErrNotExist)
	}
	return o, nil
}

// Get implements [objstore.Store].
func (s *Store) Get(ctx context.Context, key string, offset, size int64) (io.ReadCloser, error) {
	if offset < 0 {
		return nil, fmt.Errorf("get %s: %w: offset %d", key, fs.ErrInvalid, offset)
	}
	o, err := s.object(ctx, "get", key)
	if err != nil {
		return nil, err
	}
	b := o.body[min(offset, o.info.Size):]
	if size >= 0 {
		b = b[:min(size, int64(len(b)))]
	}
	return &reader{ctx: ctx, r: bytes.NewReader(b)}, nil
}

type reader struct {
	ctx context.Context // of the Get
	r   io.Reader
}

func (r *reader) Read(p []byte) (int, error) {
	if err := ended(r.ctx); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

func (r *reader) Close() error { return nil }

// Stat implements [objstore.Store].
func (s *Store) Stat(ctx context.Context, key string) (objstore.Info, error) {
	o, err := s.object(ctx, "stat", key)
	o.info.Meta = maps.Clone(o.info.Meta)
	return o.info, err
}

// List implements [objstore.Store].
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		for _, key := range s.keys(prefix, after) {
			o, err := s.object(ctx, "list", key)
			if cause := ended(ctx); cause != nil {
				yield(objstore.Info{}, fmt.Errorf("list %s: %w", prefix, cause))
				return
			}
			o.info.Meta = nil
			if err == nil && !yield(o.info, nil) {
				return
			}
		}
		if err := ended(ctx); err != nil {
			yield(objstore.Info{}, fmt.Errorf("list %s: %w", prefix, err))
		}
	}
}

func (s *Store) keys(prefix, after string) []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var keys []string
	for key := range s.mu.objects {
		if strings.HasPrefix(key, prefix) && key > after {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// Delete implements [objstore.Store].
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	if err := ended(ctx); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range keys {
		delete(s.mu.objects, key)
	}
	return nil
}

// Close does nothing; the objects stay.
func (s *Store) Close() error { return nil }

func (s *Store) String() string { return "mem://" }

func ended(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}
