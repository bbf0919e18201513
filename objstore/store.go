package objstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Store keeps objects under keys.
//
// A key is one or more segments joined by "/" (see [CheckKey]); it is relative
// to the prefix or directory that the store was opened with. All methods are
// safe for concurrent use, return soon after ctx ends with an error that wraps
// its cause, and wrap in their errors
//
//   - [fs.ErrNotExist] where the object is missing (a missing bucket, container
//     or root directory is *not* that: it is a plain error that names it),
//   - [fs.ErrExist] where PutOptions.IfAbsent met an object,
//   - [fs.ErrPermission] where the credentials are wrong or do not suffice,
//   - [ErrTransient] where the same call may succeed when tried again,
//   - [ErrDamaged] where the store itself finds that an object is no longer what
//     was put: reading it again does not help, putting it again does.
//
// Backends do not retry what the SDK below them does not retry by itself:
// wrap them with [Retry].
type Store interface {
	// Get reads size bytes of the object from offset on; size < 0 means up to
	// its end. Less is there: the reader ends early, with io.EOF, at the end of
	// the object; an offset at or behind the end gives an empty reader. The
	// reader never returns more than size bytes; a body that the network cut
	// short is an error (io.ErrUnexpectedEOF where nothing better is known),
	// never an early io.EOF. ctx bounds the reader too. Close it.
	Get(ctx context.Context, key string, offset, size int64) (io.ReadCloser, error)

	// Stat returns everything that is known of one object.
	Stat(ctx context.Context, key string) (Info, error)

	// Put stores what r yields, up to its io.EOF, replacing any object of that
	// key. The length need not be known and may be larger than memory; at most
	// some tens of MiB are held at a time. When r fails or ctx ends nothing
	// becomes visible, the object that was there stays, and what was uploaded
	// is cleaned up (a killed process may leave invisible debris). Info.Size is
	// the number of bytes stored.
	Put(ctx context.Context, key string, r io.Reader, opts PutOptions) (Info, error)

	// List yields the objects whose keys begin with prefix and are greater than
	// after ("": all), in byte order of the keys, and fetches them page by page
	// as they are asked for. An error is yielded last. What is put or deleted
	// while it runs may or may not be seen; every other object is seen once.
	// A prefix under which nothing is yields nothing. Keys that are not valid
	// ([CheckKey]) and debris of unfinished writes are left out.
	List(ctx context.Context, prefix, after string) iter.Seq2[Info, error]

	// Delete removes the objects, in as few requests as the backend allows, any
	// number of them. Keys that are missing already are no error. Where some
	// could not be removed the rest is, and the error says which ([DeleteError]).
	Delete(ctx context.Context, keys ...string) error

	// Close frees what the store holds (connections that it opened itself).
	Close() error

	// String is the URL of the store for people, without credentials.
	String() string
}

// PutOptions of one Put.
type PutOptions struct {
	// IfAbsent makes Put fail with fs.ErrExist, and leave the object as it is,
	// when the key is taken; of several such calls at once one succeeds. It may
	// fail before or after r was read.
	IfAbsent bool
	// Timestamp is kept with the object and comes back as Info.Timestamp. It is
	// required, in milliseconds (finer parts are cut off).
	Timestamp time.Time
	// Meta is kept with the object. Names: lower-case letters and digits,
	// beginning with a letter; values: printable ASCII; 1 KiB in all. See
	// [CheckMeta].
	Meta map[string]string
}

// Info describes one object. What List leaves out (see there and at each
// field), Stat knows.
type Info struct {
	Key  string
	Size int64 // bytes

	// Timestamp is PutOptions.Timestamp, UTC. Zero: the listing does not tell
	// (S3), or the object was put by something else without one. It is never
	// made up from another time.
	Timestamp time.Time
	// Coarse is how far the true timestamp may lie behind Timestamp: 0 where it
	// is exact, a second where the backend keeps whole seconds (SFTP).
	Coarse time.Duration

	// Modified is when the store itself says that the object was last written,
	// UTC; zero where it does not tell. It is the clock of the storage, not the
	// time of any transaction: nothing takes it for a Timestamp. Only objects of
	// a format that keeps no time of its own go by it (package
	// restore/generations). From List and Stat.
	Modified time.Time

	Meta map[string]string // from Stat only; nil when there is none
}

// ErrDamaged says that an object is not what was put. Not every store notices.
var ErrDamaged = errors.New("damaged object")

// ErrTransient says that the same call may succeed when tried again.
var ErrTransient = errors.New("temporary failure")

// Transient marks err: errors.Is(err, ErrTransient). nil stays nil.
func Transient(err error) error {
	if err == nil || errors.Is(err, ErrTransient) {
		return err
	}
	return transientError{err}
}

type transientError struct{ err error }

func (e transientError) Error() string        { return e.err.Error() }
func (e transientError) Unwrap() error        { return e.err }
func (e transientError) Is(target error) bool { return target == ErrTransient }

// DeleteError says which objects a Delete could not remove, and why.
type DeleteError struct {
	Failed map[string]error // by key
}

func (e *DeleteError) Error() string {
	keys := slices.Sorted(maps.Keys(e.Failed))
	more := ""
	if len(keys) > 3 {
		more = fmt.Sprintf(" and %d more", len(keys)-3)
		keys = keys[:3]
	}
	return fmt.Sprintf("delete %s%s: %v", strings.Join(keys, ", "), more, e.Failed[keys[0]])
}

// Unwrap returns the errors by order of their keys.
func (e *DeleteError) Unwrap() []error {
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(e.Failed)) {
		errs = append(errs, e.Failed[key])
	}
	return errs
}

// Add notes that key could not be removed. It returns e, or a new one for nil.
func (e *DeleteError) Add(key string, err error) *DeleteError {
	if e == nil {
		e = &DeleteError{Failed: map[string]error{}}
	}
	e.Failed[key] = err
	return e
}

// Err returns e as an error, nil where nothing failed.
func (e *DeleteError) Err() error {
	if e == nil || len(e.Failed) == 0 {
		return nil
	}
	return e
}

// DeleteEach removes objects one by one, atOnce at a time, for a backend that has no
// request for many. Its error is that of Store.Delete.
func DeleteEach(keys []string, atOnce int, remove func(key string) error) error {
	var mu struct {
		sync.Mutex
		failed *DeleteError
	}
	var g errgroup.Group
	g.SetLimit(atOnce)
	for _, key := range keys {
		g.Go(func() error {
			if err := remove(key); err != nil {
				mu.Lock()
				defer mu.Unlock()
				mu.failed = mu.failed.Add(key, err)
			}
			return nil
		})
	}
	_ = g.Wait() // none returns an error
	return mu.failed.Err()
}

// deleteBatch bounds the keys in memory of [DeletePrefix].
const deleteBatch = 1000

// DeletePrefix removes every object whose key begins with prefix and returns
// how many were asked to go.
func DeletePrefix(ctx context.Context, s Store, prefix string) (n int, err error) {
	for {
		keys := make([]string, 0, deleteBatch)
		for info, err := range s.List(ctx, prefix, "") {
			if err != nil {
				return n, err
			}
			if keys = append(keys, info.Key); len(keys) == deleteBatch {
				break
			}
		}
		if len(keys) == 0 {
			return n, nil
		}
		if err := s.Delete(ctx, keys...); err != nil {
			return n, err
		}
		n += len(keys)
	}
}

// ReadAll returns the whole object.
func ReadAll(ctx context.Context, s Store, key string) (b []byte, err error) {
	r, err := s.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	b, err = io.ReadAll(r)
	return b, err
}

const (
	maxKeyLen  = 700 // bytes; S3 and Azure take 1024 with the store's own prefix
	maxMetaLen = 1024
)

// CheckKey refuses a key that some backend could not hold: it must be 1 to 700
// printable ASCII characters in segments joined by "/", none of them empty,
// beginning with "." (backends keep debris under such names) or ending with it
// (Azure and Windows lose the dot), and without the characters
// \ : * ? " < > | # % and space.
func CheckKey(key string) error {
	if key == "" || len(key) > maxKeyLen {
		return fmt.Errorf("%w: key of %d characters, want 1 to %d", fs.ErrInvalid, len(key), maxKeyLen)
	}
	for segment := range strings.SplitSeq(key, "/") {
		if segment == "" || segment[0] == '.' || segment[len(segment)-1] == '.' {
			return fmt.Errorf("%w: key %q has a segment that is empty, or begins or ends with a dot", fs.ErrInvalid, key)
		}
	}
	if i := strings.IndexFunc(key, func(c rune) bool { return c <= ' ' || c > '~' || strings.ContainsRune(`\:*?"<>|#%`, c) }); i >= 0 {
		return fmt.Errorf("%w: key %q has a character that some stores cannot hold, at %d", fs.ErrInvalid, key, i)
	}
	return nil
}

// CheckPut refuses a key or options that some backend could not hold; every
// backend calls it first.
func CheckPut(key string, opts PutOptions) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	if opts.Timestamp.UnixMilli() <= 0 {
		return fmt.Errorf("%w: put %s: no timestamp", fs.ErrInvalid, key)
	}
	return CheckMeta(opts.Meta)
}

// CheckMeta refuses metadata that some backend could not hold.
func CheckMeta(meta map[string]string) error {
	total := 0
	for name, value := range meta {
		total += len(name) + len(value)
		if !isMetaName(name) {
			return fmt.Errorf("%w: metadata name %q: want lower-case letters and digits", fs.ErrInvalid, name)
		}
		if value == "" || strings.ContainsFunc(value, func(c rune) bool { return c <= ' ' || c > '~' }) {
			return fmt.Errorf("%w: metadata %s: want printable ASCII without spaces, have %q", fs.ErrInvalid, name, value)
		}
	}
	if total > maxMetaLen {
		return fmt.Errorf("%w: %d bytes of metadata, want at most %d", fs.ErrInvalid, total, maxMetaLen)
	}
	return nil
}

func isMetaName(s string) bool {
	for i, c := range s {
		if (c < 'a' || c > 'z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}
