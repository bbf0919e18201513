package objstoretest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/ltxstream/ltxstream/objstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestRunFaults shows that a backend can pass, by the smallest one there is.
func TestRunFaults(t *testing.T) {
	server := httptest.NewServer(&httpBucket{objects: map[string][]byte{}})
	t.Cleanup(server.Close)
	RunFaults(t, func(t testing.TB, rt http.RoundTripper, prefix string) objstore.Store {
		return &httpStore{base: server.URL + "/" + prefix + "/", client: &http.Client{Transport: rt}}
	})
}

// httpBucket keeps objects in memory: GET, HEAD, PUT, DELETE of a path, and GET
// of a path that ends in "/" for the keys below it.
type httpBucket struct {
	mu      sync.Mutex
	objects map[string][]byte
}

func (b *httpBucket) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	key := req.URL.Path
	object, ok := b.objects[key]
	switch {
	case req.Method == http.MethodPut && ok && req.Header.Get("If-None-Match") == "*":
		w.WriteHeader(http.StatusPreconditionFailed)
	case req.Method == http.MethodPut:
		b.objects[key] = body
	case req.Method == http.MethodDelete:
		delete(b.objects, key)
	case strings.HasSuffix(key, "/"):
		var keys []string
		for k := range b.objects {
			if rest, ok := strings.CutPrefix(k, key); ok {
				keys = append(keys, rest)
			}
		}
		slices.Sort(keys)
		_ = json.NewEncoder(w).Encode(keys)
	case !ok:
		w.WriteHeader(http.StatusNotFound)
	default:
		var from, to int
		if n, _ := fmt.Sscanf(req.Header.Get("Range"), "bytes=%d-%d", &from, &to); n == 2 {
			object = object[from:min(to+1, len(object))]
		} else if n == 1 {
			object = object[from:]
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(object)))
		_, _ = w.Write(object)
	}
}

// httpStore is a store on a httpBucket.
type httpStore struct {
	base   string
	client *http.Client
}

func (s *httpStore) String() string { return s.base }
func (s *httpStore) Close() error   { return nil }

func (s *httpStore) do(ctx context.Context, method, key string, body io.Reader, header ...string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, s.base+key, body)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, transport(ctx, err)
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	resp.Body.Close()
	err = errors.New(resp.Status)
	switch resp.StatusCode {
	case http.StatusNotFound:
		err = fs.ErrNotExist
	case http.StatusPreconditionFailed:
		err = fs.ErrExist
	case http.StatusForbidden:
		err = fs.ErrPermission
	case http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusTooManyRequests:
		err = objstore.Transient(err)
	}
	return nil, fmt.Errorf("%s %s: %w", method, key, err)
}

func transport(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	return objstore.Transient(err)
}

func (s *httpStore) Get(ctx context.Context, key string, offset, size int64) (io.ReadCloser, error) {
	var header []string
	if size >= 0 {
		header = []string{"Range", fmt.Sprintf("bytes=%d-%d", offset, offset+size-1)}
	} else if offset > 0 {
		header = []string{"Range", fmt.Sprintf("bytes=%d-", offset)}
	}
	resp, err := s.do(ctx, http.MethodGet, key, nil, header...)
	if err != nil {
		return nil, err
	}
	return &httpBody{ReadCloser: resp.Body, ctx: ctx, left: resp.ContentLength}, nil
}

type httpBody struct {
	io.ReadCloser
	ctx  context.Context
	left int64
}

func (b *httpBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.left -= int64(n)
	if err == io.EOF && b.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	if err != nil && err != io.EOF {
		err = transport(b.ctx, err)
	}
	return n, err
}

func (s *httpStore) Stat(ctx context.Context, key string) (objstore.Info, error) {
	resp, err := s.do(ctx, http.MethodHead, key, nil)
	if err != nil {
		return objstore.Info{}, err
	}
	return objstore.Info{Key: key, Size: resp.ContentLength}, resp.Body.Close()
}

func (s *httpStore) Put(ctx context.Context, key string, r io.Reader, opts objstore.PutOptions) (objstore.Info, error) {
	var header []string
	if opts.IfAbsent {
		header = []string{"If-None-Match", "*"}
	}
	b, err := io.ReadAll(r)
	if err != nil {
		return objstore.Info{}, err
	}
	resp, err := s.do(ctx, http.MethodPut, key, strings.NewReader(string(b)), header...)
	if err != nil {
		return objstore.Info{}, err
	}
	return objstore.Info{Key: key, Size: int64(len(b))}, resp.Body.Close()
}

func (s *httpStore) List(ctx context.Context, prefix, after string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		var keys []string
		resp, err := s.do(ctx, http.MethodGet, "", nil)
		if err == nil {
			if err = errors.Join(json.NewDecoder(resp.Body).Decode(&keys), resp.Body.Close()); err != nil {
				err = transport(ctx, err)
			}
		}
		if err != nil {
			yield(objstore.Info{}, err)
			return
		}
		for _, key := range keys {
			if key > after && strings.HasPrefix(key, prefix) && !yield(objstore.Info{Key: key}, nil) {
				return
			}
		}
	}
}

func (s *httpStore) Delete(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		resp, err := s.do(ctx, http.MethodDelete, url.PathEscape(key), nil)
		if err != nil {
			return err
		}
		resp.Body.Close()
	}
	return nil
}
