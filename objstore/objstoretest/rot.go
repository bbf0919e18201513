package objstoretest

import (
	"context"
	"io"
	"sync"

	"github.com/ltxstream/ltxstream/objstore"
)

// Rot is a store that finds damage by itself, as those do that keep checksums
// with their objects or lose pieces of them.
type Rot struct {
	objstore.Store

	mu  sync.Mutex
	bad map[string]int64 // offset of the byte that cannot be read, by key
}

// Spoil makes the byte at an offset of an object unreadable, for good or until
// the object is put again.
func (s *Rot) Spoil(key string, at int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bad == nil {
		s.bad = map[string]int64{}
	}
	s.bad[key] = at
}

// Get reads up to the byte that is spoilt.
func (s *Rot) Get(ctx context.Context, key string, offset, size int64) (io.ReadCloser, error) {
	r, err := s.Store.Get(ctx, key, offset, size)
	s.mu.Lock()
	defer s.mu.Unlock()
	at, bad := s.bad[key]
	if err != nil || !bad || at < offset || size >= 0 && at >= offset+size {
		return r, err
	}
	return &cutBody{ReadCloser: r, left: at - offset, end: func() error { return objstore.ErrDamaged }}, nil
}

// Put mends the object.
func (s *Rot) Put(ctx context.Context, key string, r io.Reader, opts objstore.PutOptions) (objstore.Info, error) {
	info, err := s.Store.Put(ctx, key, r, opts)
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.bad, key)
	}
	return info, err
}
