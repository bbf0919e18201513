package azure

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"github.com/ltxstream/ltxstream/objstore"
)

// List costs one request for 5000 objects, their timestamps included.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[objstore.Info, error] {
	opts := &container.ListBlobsFlatOptions{
		Include:    container.ListBlobsInclude{Metadata: true},
		Prefix:     to.Ptr(s.prefix + prefix),
		MaxResults: s.listPage,
	}
	if after > prefix { // else it excludes nothing
		opts.StartFrom = to.Ptr(s.prefix + after)
	}
	return func(yield func(objstore.Info, error) bool) {
		if err := s.list(ctx, opts, after, yield); err != nil {
			yield(objstore.Info{}, s.explain(ctx, err, "list", fmt.Sprintf("%q", s.prefix+prefix)))
		}
	}
}

// list returns the error that the listing ends with. A listing starts at after
// itself (startFrom is inclusive), or before it where the server does not know
// startFrom.
func (s *Store) list(ctx context.Context, opts *container.ListBlobsFlatOptions, after string, yield func(objstore.Info, error) bool) error {
	last := ""
	for pager := s.client.NewListBlobsFlatPager(opts); pager.More(); {
		page, err := pager.NextPage(ctx)
		if err != nil {
			return err
		}
		if page.Segment == nil { // it is there when it is empty
			return objstore.Transient(errors.New("the answer is not a listing: it broke off, or the endpoint does not lead to a blob service"))
		}
		for _, item := range page.Segment.BlobItems {
			info, ok := s.listed(item)
			if !ok || info.Key <= after {
				continue
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if info.Key <= last {
				return fmt.Errorf("%s came behind %s: a listing must be in byte order, which an account with a hierarchical namespace does not give", info.Key, last)
			}
			last = info.Key
			if !yield(info, nil) {
				return nil
			}
		}
	}
	return nil
}

// listed returns what a listing tells of one object; false: it is none of ours.
func (s *Store) listed(item *container.BlobItem) (info objstore.Info, ok bool) {
	key, ok := strings.CutPrefix(deref(item.Name), s.prefix)
	if !ok || objstore.CheckKey(key) != nil || item.Properties == nil || deref(item.Properties.ResourceType) == "directory" {
		return objstore.Info{}, false
	}
	info = objstore.Info{Key: key, Size: deref(item.Properties.ContentLength), Modified: deref(item.Properties.LastModified).UTC()}
	decodeMeta(&info, item.Metadata)
	info.Meta = nil // told by Stat only
	return info, true
}
