package levels

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"slices"
	"strings"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/objstore"
)

// Archive is a place that holds LTX files of any number of databases. It is
// safe for concurrent use and keeps no state.
type Archive struct {
	store  objstore.Store
	layout Layout
}

// New returns the archive that store holds in the given layout.
func New(store objstore.Store, layout Layout) *Archive {
	return &Archive{store: store, layout: layout}
}

// Store is where the archive's bytes are.
func (a *Archive) Store() objstore.Store { return a.store }

// String is the URL of the archive, for people.
func (a *Archive) String() string { return a.store.String() }

// Key is where a file is kept.
func (a *Archive) Key(db string, f File) string {
	return a.layout.folder(db, f.Level) + f.Name()
}

// Files lists the files of one level in the order of their Min, beginning with
// the first one whose Min is at least from. One request a page, fetched as they
// are asked for; keys that are not LTX files are passed over.
func (a *Archive) Files(ctx context.Context, db string, level Level, from ltx.TXID) iter.Seq2[File, error] {
	folder := a.layout.folder(db, level)
	return func(yield func(File, error) bool) {
		for info, err := range a.store.List(ctx, folder, folder+from.String()) {
			if err != nil {
				yield(File{}, fmt.Errorf("list level %d of %s: %w", level, db, err))
				return
			}
			lo, hi, ok := parseKey(folder, info.Key)
			if !ok {
				continue
			}
			f := File{Level: level, Min: lo, Max: hi, Size: info.Size, Timestamp: info.Timestamp, Coarse: info.Coarse}
			if !yield(f, nil) {
				return
			}
		}
	}
}

// Databases lists the names of the databases that the archive holds, in the
// order of their keys ("a-b" before "a", whose next character is the slash): one
// or two requests each, and for [Root] one for each of its levels. also, if given,
// says what else makes a database: files of other formats, by their keys behind the
// database's name and its slash.
func (a *Archive) Databases(ctx context.Context, also ...func(rest string) bool) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		root := false
		for after := ""; ; {
			name, next, err := a.nextDatabase(ctx, after, also)
			if err != nil {
				yield("", fmt.Errorf("list databases of %s: %w", a, err))
				return
			}
			again := name == Root && root
			if name == "" || !again && !yield(name, nil) {
				return
			}
			root, after = root || name == Root, next
		}
	}
}

// nextDatabase returns the first database with a key behind after, "" when
// there is none, and behind which key to go on.
func (a *Archive) nextDatabase(ctx context.Context, after string, also []func(rest string) bool) (name, next string, err error) {
	for info, err := range a.store.List(ctx, "", after) {
		if err != nil {
			return "", "", err
		}
		if a.isLevelKey(info.Key) {
			return Root, behindLevel(info.Key), nil
		}
		name, rest, ok := strings.Cut(info.Key, "/")
		other := func(rest string) bool {
			return slices.ContainsFunc(also, func(known func(string) bool) bool { return known(rest) })
		}
		if ok && other(info.Key) {
			return Root, name + "/g", nil // behind all names in hex digits
		}
		if ok && (a.isLevelKey(rest) || other(rest)) {
			return name, name + "0", nil // the character behind "/"
		}
	}
	return "", "", nil
}

// behindLevel is behind all files of a level of Root that begin with the same few
// digits as key. A database that is called like the level's folder has its own
// levels behind that still.
func behindLevel(key string) string {
	const digits = 4 // of 16: the same ones up to TXID 2^48
	return key[:strings.LastIndexByte(key, '/')+1+digits] + "g"
}

// isLevelKey reports whether a key, without the database's name, is that of an
// LTX file.
func (a *Archive) isLevelKey(rest string) bool {
	i := strings.LastIndexByte(rest, '/')
	for level := Stream; level <= Snapshot; level++ {
		if folder := a.layout.folder(Root, level); folder == rest[:i+1] {
			_, _, ok := parseKey(folder, rest)
			return ok
		}
	}
	return false
}

// Has reports whether the archive holds a file of a database: one request for
// each level, up to the first that has some.
func (a *Archive) Has(ctx context.Context, db string) (bool, error) {
	for level := Snapshot; level >= Stream; level-- {
		for _, err := range a.Files(ctx, db, level, 0) {
			return err == nil, err
		}
	}
	return false, nil
}

// Open reads size bytes of a file from offset on, to its end when size < 0. A
// missing file is fs.ErrNotExist; what the store itself finds damaged is a
// [*DamageError], here or from the reader.
func (a *Archive) Open(ctx context.Context, db string, f File, offset, size int64) (io.ReadCloser, error) {
	key := a.Key(db, f)
	r, err := a.store.Get(ctx, key, offset, size)
	if err != nil {
		return nil, DamageOf(key, err)
	}
	return &opened{ReadCloser: r, key: key}, nil
}

// opened reads a file.
type opened struct {
	io.ReadCloser
	key string
}

func (o *opened) Read(p []byte) (int, error) {
	n, err := o.ReadCloser.Read(p)
	return n, DamageOf(o.key, err)
}

// DamageOf is err, a [*DamageError] where the store found the object damaged.
func DamageOf(key string, err error) error {
	if !errors.Is(err, objstore.ErrDamaged) {
		return err
	}
	return &DamageError{Key: key, Err: err}
}

// Put stores an LTX file whose Timestamp is set, and returns its size in File.
// A file of that range that is there already is fs.ErrExist.
func (a *Archive) Put(ctx context.Context, db string, f File, r io.Reader, meta map[string]string) (File, error) {
	info, err := a.store.Put(ctx, a.Key(db, f), r, objstore.PutOptions{IfAbsent: true, Timestamp: f.Timestamp, Meta: meta})
	if err != nil {
		return File{}, err
	}
	f.Size = info.Size
	return f, nil
}

// Replace stores like Put over a file of the same range.
func (a *Archive) Replace(ctx context.Context, db string, f File, r io.Reader, meta map[string]string) (File, error) {
	info, err := a.store.Put(ctx, a.Key(db, f), r, objstore.PutOptions{Timestamp: f.Timestamp, Meta: meta})
	if err != nil {
		return File{}, err
	}
	f.Size = info.Size
	return f, nil
}

// Delete removes files; those that are missing already are no error.
func (a *Archive) Delete(ctx context.Context, db string, files []File) error {
	keys := make([]string, len(files))
	for i, f := range files {
		keys[i] = a.Key(db, f)
	}
	return a.store.Delete(ctx, keys...)
}

// Header reads a file's LTX header: one request.
func (a *Archive) Header(ctx context.Context, db string, f File) (hdr ltx.Header, err error) {
	b, err := a.read(ctx, db, f, 0, ltx.HeaderSize)
	if err != nil {
		return hdr, err
	}
	if err = hdr.UnmarshalBinary(b); err == nil {
		err = hdr.Validate()
	}
	if err == nil && f.Level != Snapshot && (hdr.MinTXID != f.Min || hdr.MaxTXID != f.Max) || err == nil && hdr.MaxTXID != f.Max {
		err = fmt.Errorf("it holds %s-%s", hdr.MinTXID, hdr.MaxTXID)
	}
	if err != nil {
		return hdr, &DamageError{Key: a.Key(db, f), Err: fmt.Errorf("ltx header: %w", err)}
	}
	return hdr, nil
}

// Trailer reads a file's LTX trailer: one request.
func (a *Archive) Trailer(ctx context.Context, db string, f File) (t ltx.Trailer, err error) {
	if f.Size < ltx.HeaderSize+ltx.TrailerSize {
		return t, &DamageError{Key: a.Key(db, f), Err: fmt.Errorf("%d bytes are no LTX file", f.Size)}
	}
	b, err := a.read(ctx, db, f, f.Size-ltx.TrailerSize, ltx.TrailerSize)
	if err != nil {
		return t, err
	}
	return t, t.UnmarshalBinary(b)
}

func (a *Archive) read(ctx context.Context, db string, f File, offset, size int64) (b []byte, err error) {
	r, err := a.Open(ctx, db, f, offset, size)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	var buf bytes.Buffer
	if _, err := io.Copy(&buf, r); err != nil {
		return nil, fmt.Errorf("read %s: %w", a.Key(db, f), err)
	}
	if int64(buf.Len()) != size {
		return nil, &DamageError{Key: a.Key(db, f), Err: fmt.Errorf("has %d bytes at %d, want %d", buf.Len(), offset, size)}
	}
	return buf.Bytes(), nil
}

// DamageError says that an object of an archive is not what it should be.
type DamageError struct {
	Key string
	Err error
}

func (e *DamageError) Error() string { return fmt.Sprintf("damaged file %s: %v", e.Key, e.Err) }

func (e *DamageError) Unwrap() error { return e.Err }

// IsGone reports whether err says that a file is not there (any more).
func IsGone(err error) bool { return errors.Is(err, fs.ErrNotExist) }
