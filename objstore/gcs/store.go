package gcs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"cloud.google.com/go/storage"
	"google.golang.org/api/iterator"

	"github.com/ltxstream/ltxstream/objstore"
)

const (
	listPage       = 1000 // what the API gives at most
	deleteParallel = 16   // the API has no request that removes several objects

	timestampName = "litestream-timestamp"
	metaPrefix    = "ltxstream-" // of the names in PutOptions.Meta
	timeLayout    = "2006-01-02T15:04:05.000Z07:00"
)

// Store keeps objects in a bucket. See [objstore.Store].
type Store struct {
	cfg    Config
	bucket *storage.BucketHandle
	prefix string // of all names: "" or ending in "/"
	page   int    // objects in a page of a listing; tests have smaller ones
	free   func() // closes the connections, if they are ours
}

var _ objstore.Store = (*Store)(nil)

// New opens the store that cfg describes. It reads the credentials, and makes
// no request but, where there is no file of them, to the metadata server of the
// machine. A bucket that is missing shows at the first call.
func New(ctx context.Context, cfg Config) (*Store, error) {
	cfg, err := cfg.check()
	if err != nil {
		return nil, fmt.Errorf("open gs://%s: %w", cfg.Bucket, err)
	}
	client, free, err := newClient(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open gs://%s: %w", cfg.Bucket, err)
	}
	s := &Store{cfg: cfg, bucket: client.Bucket(cfg.Bucket), page: listPage, free: free}
	if cfg.Prefix != "" {
		s.prefix = cfg.Prefix + "/"
	}
	return s, nil
}

// Close frees the connections, unless they are those of Config.HTTPClient.
func (s *Store) Close() error {
	s.free()
	return nil
}

// String is the URL that [ParseURL] reads.
func (s *Store) String() string {
	u := url.URL{Scheme: scheme, Host: s.cfg.Bucket, Path: path.Join("/", s.cfg.Prefix)}
	if s.cfg.Endpoint != "" {
		u.RawQuery = url.Values{"endpoint": {s.cfg.Endpoint}}.Encode()
	}
	return strings.TrimSuffix(u.String(), "/")
}

func (s *Store) object(key string) *storage.ObjectHandle { return s.bucket.Object(s.prefix + key) }

// Stat costs one request.
func (s *Store) Stat(ctx context.Context, key string) (objstore.Info, error) {
	if err := objstore.CheckKey(key); err != nil {
		return objstore.Info{}, err
	}
	attrs, err := s.object(key).Attrs(ctx)
	if err != nil {
		return objstore.Info{}, s.explain(ctx, "stat", key, err)
	}
	info := listed(key, attrs)
	info.Meta = metaOf(attrs.Metadata)
	return info, nil
}

// listed is what a listing tells of an object.
func listed(key string, attrs *storage.ObjectAttrs) objstore.Info {
	return objstore.Info{
		Key: key, Size: attrs.Size, Timestamp: timestampOf(attrs.Metadata),
		Modified: attrs.Created.UTC(), // of this content; Updated is of its metadata too
	}
}

// timestampOf is zero where there is none, or none that can be read.
func timestampOf(metadata map[string]string) time.Time {
	for name, value := range metadata {
		if strings.EqualFold(name, timestampName) {
			if t, err := time.Parse(time.RFC3339, value); err == nil {
				return t.UTC()
			}
		}
	}
	return time.Time{}
}

func metaOf(metadata map[string]string) map[string]string {
	var meta map[string]string
	for name, value := range metadata {
		if name, ok := strings.CutPrefix(strings.ToLower(name), metaPrefix); ok {
			if meta == nil {
				meta = map[string]string{}
			}
			meta[name] = value
		}
	}
	return meta
}

// metadata is what timestampOf and metaOf read.
func metadata(opts objstore.PutOptions) map[string]string {
	m := map[string]string{timestampName: opts.Timestamp.UTC().Format(timeLayout)}
	for name, value := range opts.Meta {
		m[metaPrefix+name] = value
	}
	return m
}

// List costs a request for each thousand objects and tells their timestamps.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		query := &storage.Query{Prefix: s.prefix + prefix, Projection: storage.ProjectionNoACL}
		if after != "" {
			query.StartOffset = s.prefix + after // inclusive
		}
		err := query.SetAttrSelection([]string{"Name", "Size", "Metadata", "Created"})
		objects := s.bucket.Objects(ctx, query)
		objects.PageInfo().MaxSize = s.page
		for err == nil && ctx.Err() == nil {
			var attrs *storage.ObjectAttrs
			if attrs, err = objects.Next(); err != nil {
				break
			}
			key := strings.TrimPrefix(attrs.Name, s.prefix)
			if key <= after || objstore.CheckKey(key) != nil {
				continue
			}
			if !yield(listed(key, attrs), nil) {
				return
			}
		}
		if err == nil || !errors.Is(err, iterator.Done) {
			yield(objstore.Info{}, s.explain(ctx, "list", strconv.Quote(prefix), err))
		}
	}
}

// Delete costs a request for each object, some at a time.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	return objstore.DeleteEach(keys, deleteParallel, func(key string) error { return s.deleteOne(ctx, key) })
}

func (s *Store) deleteOne(ctx context.Context, key string) error {
	err := objstore.CheckKey(key)
	if err != nil {
		return err
	}
	if err = s.object(key).Delete(ctx); err == nil {
		return nil
	}
	if err = s.explain(ctx, "delete", key, err); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
