package gcs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"time"

	"cloud.google.com/go/storage"

	"github.com/ltxstream/ltxstream/objstore"
)

const (
	// chunkRetry is for how long the SDK tries a piece of a large object again
	// (100 ms apart at first, doubling) before the Put fails.
	chunkRetry = 30 * time.Second
	// chunkTimeout ends a try of a piece: less than 70 KB/s is a stalled line.
	chunkTimeout = 2 * time.Minute
)

// castagnoli is the polynomial of the checksums of the service.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Put costs one request for an object that is shorter than Config.ChunkSize,
// else two and one for each further chunk. The server compares the checksum of
// the object with ours before it makes it visible.
func (s *Store) Put(ctx context.Context, key string, r io.Reader, opts objstore.PutOptions) (objstore.Info, error) {
	if err := objstore.CheckPut(key, opts); err != nil {
		return objstore.Info{}, err
	}
	if err := ctx.Err(); err != nil {
		return objstore.Info{}, s.explain(ctx, "put", key, err)
	}
	src := &source{r: r}
	err := s.upload(ctx, key, src, opts)
	if err == nil {
		return objstore.Info{Key: key, Size: src.n, Timestamp: opts.Timestamp.UTC().Truncate(time.Millisecond)}, nil
	}
	if src.err != nil && ctx.Err() == nil {
		return objstore.Info{}, fmt.Errorf("put %s: %w", key, src.err)
	}
	if err = s.explain(ctx, "put", key, err); errors.Is(err, fs.ErrNotExist) { // and the bucket is there
		err = objstore.Transient(fmt.Errorf("put %s: the server has forgotten the upload", key))
	}
	return objstore.Info{}, err
}

// source notes what was read and how the reading ended.
type source struct {
	r   io.Reader
	n   int64
	err error // other than io.EOF
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.n += int64(n)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

func (s *Store) upload(ctx context.Context, key string, src *source, opts objstore.PutOptions) error {
	var head bytes.Buffer
	_, err := io.CopyN(&head, src, int64(s.cfg.ChunkSize))
	if err != nil && err != io.EOF {
		return err // nothing was sent yet
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w := s.writer(ctx, key, opts)
	var rest io.Reader = src
	if err == io.EOF { // head is all
		rest = nil
		w.ChunkSize = 0 // one request, without a buffer of the SDK's own
		w.CRC32C, w.SendCRC32C = crc32.Checksum(head.Bytes(), castagnoli), true
	}
	_, err = head.WriteTo(w)
	if err == nil && rest != nil {
		_, err = io.Copy(w, rest)
	}
	if err != nil {
		cancel() // before Close, which would store what is there
	}
	if closed := w.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	if stored := w.Attrs().Size; stored != src.n {
		return fmt.Errorf("the server stored %d bytes of %d", stored, src.n)
	}
	return nil
}

func (s *Store) writer(ctx context.Context, key string, opts objstore.PutOptions) *storage.Writer {
	object := s.object(key)
	if opts.IfAbsent {
		object = object.If(storage.Conditions{DoesNotExist: true})
	}
	w := object.NewWriter(ctx)
	w.ChunkSize = s.cfg.ChunkSize
	w.ChunkRetryDeadline = chunkRetry
	w.ChunkTransferTimeout = chunkTimeout
	w.ContentType = "application/octet-stream"
	w.Metadata = metadata(opts)
	return w
}
