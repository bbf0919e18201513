package azure

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net/http"
	"net/url"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"github.com/ltxstream/ltxstream/objstore"
)

// Store is an [objstore.Store] in a container.
type Store struct {
	cfg    Config // complete
	client *container.Client
	own    *http.Transport // nil: Config.Transport is used
	prefix string          // "" or with a "/" at its end

	// Limits of the service, lower in tests.
	maxBlocks int    // of a blob
	listPage  *int32 // objects of one request of a listing; nil: 5000
}

const maxBlocks = 50_000

var _ objstore.Store = (*Store)(nil)

// New opens a store. It makes no request: wrong credentials and a missing
// container show at the first call.
func New(_ context.Context, cfg Config) (*Store, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, fmt.Errorf("open azure store: %w", err)
	}
	s := &Store{cfg: cfg, maxBlocks: maxBlocks}
	transport := cfg.Transport
	if transport == nil {
		s.own = newTransport()
		transport = s.own
	}
	if cfg.Prefix != "" {
		s.prefix = cfg.Prefix + "/"
	}
	if s.client, err = cfg.newClient(transport); err != nil {
		return nil, fmt.Errorf("open azure store: %w", err)
	}
	return s, nil
}

// String is the URL of the store, with its endpoint where it is not Azure's.
func (s *Store) String() string {
	u := url.URL{Scheme: "abs", User: url.User(s.cfg.Account), Host: s.cfg.Container, Path: "/" + s.cfg.Prefix}
	if s.cfg.Endpoint != "https://"+s.cfg.Account+".blob.core.windows.net" {
		u.RawQuery = url.Values{"endpoint": {s.cfg.Endpoint}}.Encode()
	}
	return u.String()
}

// Close closes the connections that the store opened itself.
func (s *Store) Close() error {
	if s.own != nil {
		s.own.CloseIdleConnections()
	}
	return nil
}

func (s *Store) blob(key string) *blockblob.Client {
	return s.client.NewBlockBlobClient(s.prefix + key)
}

// Stat costs one request.
func (s *Store) Stat(ctx context.Context, key string) (objstore.Info, error) {
	if err := objstore.CheckKey(key); err != nil {
		return objstore.Info{}, err
	}
	props, err := s.blob(key).GetProperties(ctx, nil)
	if err != nil {
		return objstore.Info{}, s.explain(ctx, err, "stat", key)
	}
	info := objstore.Info{Key: key, Size: deref(props.ContentLength), Modified: deref(props.LastModified).UTC()}
	decodeMeta(&info, props.Metadata)
	return info, nil
}

// Get costs one request.
func (s *Store) Get(ctx context.Context, key string, offset, size int64) (io.ReadCloser, error) {
	if err := objstore.CheckKey(key); err != nil {
		return nil, err
	}
	if offset < 0 {
		return nil, fmt.Errorf("%w: get %s: offset %d", fs.ErrInvalid, key, offset)
	}
	if size == 0 { // which the service would take for "all"
		_, err := s.Stat(ctx, key)
		return io.NopCloser(bytes.NewReader(nil)), err
	}
	if size < 0 || size > math.MaxInt64-offset {
		size = blob.CountToEnd
	}
	resp, err := s.blob(key).DownloadStream(ctx, &blob.DownloadStreamOptions{Range: blob.HTTPRange{Offset: offset, Count: size}})
	if bloberror.HasCode(err, bloberror.InvalidRange) && ctx.Err() == nil { // behind the end
		return io.NopCloser(bytes.NewReader(nil)), nil
	}
	if err != nil {
		return nil, s.explain(ctx, err, "get", key)
	}
	ranged := offset > 0 || size != blob.CountToEnd
	if want := fmt.Sprintf("bytes %d-", offset); ranged && !strings.HasPrefix(deref(resp.ContentRange), want) {
		return nil, errors.Join(fmt.Errorf("get %s: asked for the range from %d on, the answer is of range %q", key, offset, deref(resp.ContentRange)), resp.Body.Close())
	}
	b := &body{s: s, ctx: ctx, key: key, r: resp.Body}
	if resp.ContentLength != nil {
		b.left = *resp.ContentLength
	}
	return b, nil
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// body is the reader of one Get.
type body struct {
	s    *Store
	ctx  context.Context // of the Get: it bounds the reader too
	key  string
	r    io.ReadCloser
	left int64 // that must come before the end
}

func (b *body) Read(p []byte) (int, error) {
	if b.ctx.Err() != nil {
		return 0, b.s.explain(b.ctx, b.ctx.Err(), "read", b.key)
	}
	n, err := b.r.Read(p)
	b.left -= int64(n)
	if err == io.EOF && b.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	if err != nil && err != io.EOF {
		err = b.s.explain(b.ctx, &brokenBody{err}, "read", b.key)
	}
	return n, err
}

func (b *body) Close() error { return b.r.Close() }

// deletesAtOnce is how many requests of one Delete run in parallel. Batches of
// the service were slower, need more permissions and are billed alike.
const deletesAtOnce = 16

// Delete costs one request for each object.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	return objstore.DeleteEach(keys, deletesAtOnce, func(key string) error { return s.deleteOne(ctx, key) })
}

func (s *Store) deleteOne(ctx context.Context, key string) error {
	if err := objstore.CheckKey(key); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return s.explain(ctx, ctx.Err(), "delete", key)
	}
	_, err := s.blob(key).Delete(ctx, nil)
	if err == nil || bloberror.HasCode(err, bloberror.BlobNotFound) {
		return nil
	}
	return s.explain(ctx, err, "delete", key)
}
