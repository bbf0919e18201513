package azure

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"golang.org/x/sync/errgroup"

	"github.com/ltxstream/ltxstream/objstore"
)

// Put costs one request for an object of less than Config.BlockSize bytes; for
// a larger one, one for each block and one to commit them, with IfAbsent one
// more before. Of those a block is tried up to three times, as is the commit
// without IfAbsent: their object would be lost as a whole.
//
// (The SDK's UploadStream would read its source to the end after a block has
// failed, and notice too many blocks at the commit only.)
func (s *Store) Put(ctx context.Context, key string, r io.Reader, opts objstore.PutOptions) (objstore.Info, error) {
	if err := objstore.CheckPut(key, opts); err != nil {
		return objstore.Info{}, err
	}
	u := &upload{s: s, key: key, blob: s.blob(key), opts: opts}
	if err := u.run(ctx, r); err != nil {
		if ctx.Err() != nil { // whatever r makes of it
			err = context.Cause(ctx)
		}
		return objstore.Info{}, fmt.Errorf("put %s: %w", key, err)
	}
	return objstore.Info{Key: key, Size: u.size, Timestamp: time.UnixMilli(opts.Timestamp.UnixMilli()).UTC()}, nil
}

// upload is one Put. Its errors do not name the object: Put does.
type upload struct {
	s    *Store
	key  string
	blob *blockblob.Client
	opts objstore.PutOptions

	size int64
	id   [blockIDLen]byte
	ids  []string // of the blocks, in order
}

// blockIDLen is what the SDK's uploads use too: the service refuses a block
// whose id is of another length than those of earlier uploads to the same key.
const blockIDLen = 64

func (u *upload) run(ctx context.Context, r io.Reader) error {
	first, err := fill(ctx, r, nil, int(u.s.cfg.BlockSize))
	switch {
	case err == io.EOF:
		return u.whole(ctx, first)
	case err != nil:
		return err
	}
	if u.opts.IfAbsent { // before a large object is sent for nothing
		switch _, err := u.s.Stat(ctx, u.key); {
		case err == nil:
			return fs.ErrExist
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	if err := u.stage(ctx, first, r); err != nil {
		return err
	}
	return u.commit(ctx)
}

// whole puts an object in one request.
//
// What it meets with IfAbsent may be no object but blocks of an upload that
// broke off, which count as one here, though not when a block list is committed.
func (u *upload) whole(ctx context.Context, content []byte) error {
	_, err := u.blob.Upload(policy.WithRetryOptions(ctx, once(len(content))), streaming.NopCloser(bytes.NewReader(content)),
		&blockblob.UploadOptions{Metadata: encodeMeta(u.opts), AccessConditions: u.conditions()})
	if err == nil {
		u.size = int64(len(content))
		return nil
	}
	err = u.s.reason(ctx, err)
	if !u.opts.IfAbsent || !errors.Is(err, fs.ErrExist) {
		return err
	}
	switch _, statErr := u.s.Stat(ctx, u.key); {
	case statErr == nil:
		return err
	case !errors.Is(statErr, fs.ErrNotExist):
		return statErr
	}
	if err := u.stage(ctx, content, bytes.NewReader(nil)); err != nil {
		return err
	}
	return u.commit(ctx)
}

// stage sends first and what r yields as blocks.
func (u *upload) stage(ctx context.Context, first []byte, r io.Reader) error {
	_, _ = rand.Read(u.id[:16])
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	g, ctx := errgroup.WithContext(ctx)
	err := u.readBlocks(ctx, g, first, r)
	if err != nil {
		stop(err)
	}
	if sendErr := g.Wait(); err == nil {
		err = sendErr
	}
	return err
}

// readBlocks hands the blocks to g as long as ctx lasts, which ends with the
// first of them that fails.
func (u *upload) readBlocks(ctx context.Context, g *errgroup.Group, first []byte, r io.Reader) error {
	size := int(u.s.cfg.BlockSize)
	free := make(chan []byte, u.s.cfg.Concurrency) // buffers; nil: not made yet
	for range u.s.cfg.Concurrency - 1 {
		free <- nil
	}
	if len(first) > 0 { // a block is never empty
		if err := u.send(ctx, g, first, free); err != nil {
			return err
		}
	}
	for {
		var buf []byte
		select {
		case buf = <-free:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if buf == nil {
			buf = make([]byte, 0, size)
		}
		block, err := fill(ctx, r, buf, size)
		if err != nil && err != io.EOF {
			return err
		}
		if len(block) > 0 {
			if err := u.send(ctx, g, block, free); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
	}
}

// send lets g send the block as the next one, and give it to free when that
// succeeded (else the transport may still read it).
func (u *upload) send(ctx context.Context, g *errgroup.Group, block []byte, free chan<- []byte) error {
	if len(u.ids) == u.s.maxBlocks {
		return fmt.Errorf("larger than %d blocks of %d bytes: raise block-size", u.s.maxBlocks, u.s.cfg.BlockSize)
	}
	binary.BigEndian.PutUint32(u.id[16:], uint32(len(u.ids)))
	id := base64.StdEncoding.EncodeToString(u.id[:])
	u.ids = append(u.ids, id)
	u.size += int64(len(block))
	g.Go(func() error {
		_, err := u.blob.StageBlock(policy.WithRetryOptions(ctx, again(len(block))), id, streaming.NopCloser(bytes.NewReader(block)), nil)
		if err != nil {
			return u.s.reason(ctx, err)
		}
		free <- block
		return nil
	})
	return nil
}

// commit makes the object of its blocks.
func (u *upload) commit(ctx context.Context) error {
	retry := again(0)
	if u.opts.IfAbsent { // a second try would meet what the first one made
		retry = once(0)
	}
	_, err := u.blob.CommitBlockList(policy.WithRetryOptions(ctx, retry), u.ids,
		&blockblob.CommitBlockListOptions{Metadata: encodeMeta(u.opts), AccessConditions: u.conditions()})
	if u.opts.IfAbsent && bloberror.HasCode(err, bloberror.InvalidBlockList) && ctx.Err() == nil {
		return fmt.Errorf("%w: another writer took the key meanwhile", fs.ErrExist)
	}
	if err != nil {
		return u.s.reason(ctx, err)
	}
	return nil
}

func (u *upload) conditions() *blob.AccessConditions {
	if !u.opts.IfAbsent {
		return nil
	}
	return &blob.AccessConditions{ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfNoneMatch: to.Ptr(azcore.ETagAny)}}
}

// once is one try to send n bytes. It fails after a minute and what n bytes
// take at 64 KiB/s: else a connection that went silent would hold a Put until
// its context ends.
func once(n int) policy.RetryOptions {
	return policy.RetryOptions{MaxRetries: -1, TryTimeout: time.Minute + time.Duration(n>>16)*time.Second}
}

// again is three tries within some seconds.
func again(n int) policy.RetryOptions {
	opts := once(n)
	opts.MaxRetries, opts.RetryDelay, opts.MaxRetryDelay = 2, 200*time.Millisecond, 5*time.Second
	return opts
}

const firstRead = 64 << 10

// fill reads r into buf, which grows as needed, until that holds n bytes or r
// ends (io.EOF, and what there was).
func fill(ctx context.Context, r io.Reader, buf []byte, n int) ([]byte, error) {
	for buf = buf[:0]; len(buf) < n; {
		if ctx.Err() != nil {
			return buf, context.Cause(ctx)
		}
		if len(buf) == cap(buf) {
			buf = slices.Grow(buf, min(max(len(buf), firstRead), n-len(buf)))
		}
		k, err := r.Read(buf[len(buf):min(cap(buf), n)])
		buf = buf[:len(buf)+k]
		if err != nil {
			return buf, err
		}
	}
	return buf, nil
}
