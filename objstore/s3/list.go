package s3

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/ltxstream/ltxstream/objstore"
)

// List is one request for each 1000 objects. It does not tell timestamps.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		what := s.what("list", prefix)
		for page, err := range s.pages(ctx, prefix, after) {
			if err != nil {
				yield(objstore.Info{}, explain(ctx, what, err))
				return
			}
			for _, o := range page {
				key := strings.TrimPrefix(*o.Key, s.dir)
				if objstore.CheckKey(key) != nil {
					continue
				}
				if ctx.Err() != nil {
					yield(objstore.Info{}, explain(ctx, what, ctx.Err()))
					return
				}
				if !yield(objstore.Info{Key: key, Size: *o.Size, Modified: modified(o.LastModified)}, nil) {
					return
				}
			}
		}
	}
}

// pages yields what S3 lists, an error last.
func (s *Store) pages(ctx context.Context, prefix, after string) iter.Seq2[[]types.Object, error] {
	return func(yield func([]types.Object, error) bool) {
		last := ""
		in := &s3.ListObjectsV2Input{Bucket: &s.cfg.Bucket, Prefix: s.object(prefix)}
		if after != "" {
			last = s.dir + after
			in.StartAfter = &last
		}
		for {
			out, err := s.client.ListObjectsV2(ctx, in)
			if err == nil {
				err = checkPage(out, last)
			}
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(out.Contents, nil) || !*out.IsTruncated {
				return
			}
			if n := len(out.Contents); n > 0 {
				last = *out.Contents[n-1].Key
			}
			in.StartAfter, in.ContinuationToken = nil, out.NextContinuationToken
		}
	}
}

// checkPage refuses a page that would pass for a listing without being one:
// the SDK takes an empty answer for a bucket without objects, and there are
// buckets (directory buckets) that list in no order.
func checkPage(out *s3.ListObjectsV2Output, last string) error {
	if out.IsTruncated == nil || *out.IsTruncated && aws.ToString(out.NextContinuationToken) == "" {
		return errEmptyAnswer
	}
	for _, o := range out.Contents {
		if o.Key == nil || o.Size == nil {
			return errEmptyAnswer
		}
		if *o.Key <= last {
			return fmt.Errorf("the server lists %q behind %q: it must list in byte order", *o.Key, last)
		}
		last = *o.Key
	}
	return nil
}

// deleteBatch is how many objects S3 removes by one request.
const deleteBatch = 1000

// Delete is one request for each 1000 objects.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		if err := objstore.CheckKey(key); err != nil {
			return fmt.Errorf("%s: %w", s.what("delete", key), err)
		}
	}
	var failed *objstore.DeleteError
	for len(keys) > 0 {
		n := min(len(keys), deleteBatch)
		failed = s.deleteBatch(ctx, keys[:n], failed)
		keys = keys[n:]
	}
	return failed.Err()
}

// deleteBatch notes in failed every key that the answer does not call deleted.
func (s *Store) deleteBatch(ctx context.Context, keys []string, failed *objstore.DeleteError) *objstore.DeleteError {
	ids := make([]types.ObjectIdentifier, len(keys))
	for i, key := range keys {
		ids[i].Key = s.object(key)
	}
	out, err := s.client.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: &s.cfg.Bucket, Delete: &types.Delete{Objects: ids}})
	results := map[string]error{} // by the bucket's key
	if err == nil {
		err = errEmptyAnswer // for those that it does not mention
		for _, o := range out.Deleted {
			results[aws.ToString(o.Key)] = nil
		}
		for _, e := range out.Errors {
			results[aws.ToString(e.Key)] = answered(e.Code, e.Message)
		}
	}
	for i, key := range keys {
		result, ok := results[*ids[i].Key]
		if !ok {
			result = err
		}
		if result = explain(ctx, s.what("delete", key), result); result != nil && !errors.Is(result, fs.ErrNotExist) {
			failed = failed.Add(key, result)
		}
	}
	return failed
}
