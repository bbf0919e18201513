package s3

import (
	"context"
	"fmt"
	"io"
	"maps"
	"time"

	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"

	"github.com/ltxstream/ltxstream/objstore"
)

const (
	// uploadConcurrency is how many parts of one Put are under way at once.
	uploadConcurrency = 2
	// abortTimeout bounds the clean-up after a Put that failed, for which its
	// context may have ended.
	abortTimeout = 10 * time.Second
)

// Put is one request for a body of up to Config.PartSize, else a multipart
// upload of 2 requests and one for each part.
func (s *Store) Put(ctx context.Context, key string, r io.Reader, opts objstore.PutOptions) (objstore.Info, error) {
	what := s.what("put", key)
	if err := objstore.CheckPut(key, opts); err != nil {
		return objstore.Info{}, fmt.Errorf("%s: %w", what, err)
	}
	if ctx.Err() != nil {
		return objstore.Info{}, explain(ctx, what, ctx.Err())
	}
	partSize, err := s.partSize(r)
	if err != nil {
		return objstore.Info{}, fmt.Errorf("%s: %w", what, err)
	}
	src, up := &source{r: r}, &upload{Client: s.client}
	in := &transfermanager.UploadObjectInput{Bucket: &s.cfg.Bucket, Key: s.object(key), Body: src, Metadata: writeMeta(opts)}
	if opts.IfAbsent {
		in.IfNoneMatch = new("*")
	}
	_, err = s.manager(up, partSize).UploadObject(ctx, in)
	if up.failed != nil {
		err = up.failed
	}
	if err != nil {
		return objstore.Info{}, explain(ctx, what, err)
	}
	return objstore.Info{
		Key: key, Size: src.n, Timestamp: opts.Timestamp.UTC().Truncate(time.Millisecond), Meta: maps.Clone(opts.Meta),
	}, nil
}

// manager is the transfer manager of one Put.
func (s *Store) manager(up *upload, partSize int64) *transfermanager.Client {
	return transfermanager.New(up, func(o *transfermanager.Options) {
		o.PartSizeBytes = partSize
		o.MultipartUploadThreshold = partSize + 1 // from there on
		o.MaxUploadParts = maxParts
		o.Concurrency = uploadConcurrency
		o.FailTimeout = abortTimeout
		o.RequestChecksumCalculation = s.client.Options().RequestChecksumCalculation // it would take its own default
	})
}

// partSize is Config.PartSize, or more where r is known to need it.
func (s *Store) partSize(r io.Reader) (int64, error) {
	seeker, ok := r.(io.Seeker)
	if !ok {
		return s.cfg.PartSize, nil
	}
	at, err := seeker.Seek(0, io.SeekCurrent)
	if err != nil { // a pipe is an *os.File too
		return s.cfg.PartSize, nil
	}
	end, err := seeker.Seek(0, io.SeekEnd)
	if err != nil {
		return s.cfg.PartSize, nil
	}
	_, err = seeker.Seek(at, io.SeekStart)
	return max(s.cfg.PartSize, (end-at+maxParts-1)/maxParts), err
}

// source counts what is read of a body.
type source struct {
	r io.Reader
	n int64
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.n += int64(n)
	return n, err
}
