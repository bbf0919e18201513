package natsobj

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/ltxstream/ltxstream/objstore"
)

const (
	chunkSize    = 128 << 10 // the object store's own default
	chunkHeaders = 1 << 10   // room for headers in a message
	commitTries  = 32        // of a meta, while others put the same key
)

// Put publishes the chunks, waits until the server has them all, and then
// publishes the meta: a small object that is new costs two messages.
func (s *Store) Put(ctx context.Context, key string, r io.Reader, opts objstore.PutOptions) (objstore.Info, error) {
	if err := objstore.CheckPut(key, opts); err != nil {
		return objstore.Info{}, err
	}
	if ctx.Err() != nil {
		return objstore.Info{}, named("put", key, context.Cause(ctx))
	}
	u := s.newUpload(key, opts)
	defer u.win.close()
	if err := u.send(ctx, r); err != nil {
		u.abort(ctx)
		return objstore.Info{}, named("put", key, err)
	}
	old, err := u.commit(ctx, opts)
	if err != nil {
		if !u.unsure {
			u.abort(ctx)
		}
		return objstore.Info{}, named("put", key, err)
	}
	if old.hasChunks() && old.NUID != u.nuid {
		err = s.purge(ctx, s.chunkSubject(old.NUID), 0)
	}
	if err := errors.Join(err, s.nameObjects(ctx)); err != nil { // the object is stored all the same
		s.cfg.Logger.Warn("bucket was not tidied after a put", "bucket", s.cfg.Bucket, "key", key, "err", err)
	}
	return objstore.Info{Key: key, Size: u.size, Timestamp: opts.Timestamp.UTC().Truncate(time.Millisecond)}, nil
}

// upload is the chunks of one Put.
type upload struct {
	s      *Store
	key    string
	absent bool
	nuid   string
	began  time.Time
	hash   hash.Hash
	size   int64
	chunks int
	win    *window // its acks are those of the chunks
	unsure bool    // the meta may be stored yet, and then needs its chunks
}

func (s *Store) newUpload(key string, opts objstore.PutOptions) *upload {
	nuid := rand.Text()
	return &upload{
		s: s, key: key, absent: opts.IfAbsent, nuid: nuid, began: time.Now(), hash: sha256.New(),
		win: &window{s: s, subject: s.chunkSubject(nuid)},
	}
}

// send publishes all of r, one chunk after the other in the stream.
func (u *upload) send(ctx context.Context, r io.Reader) error {
	buf := make([]byte, u.s.chunk)
	for {
		n, err := fill(r, buf)
		if err != nil && err != io.EOF {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if n > 0 {
			if err := u.sendChunk(ctx, buf[:n]); err != nil {
				return err
			}
		}
		if err != nil {
			return u.win.drain(ctx)
		}
	}
}

// fill reads until buf is full or r ends, with io.EOF. (io.ReadFull does not
// tell that end from a source that was cut short.)
func fill(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var more int
		more, err = r.Read(buf[n:])
		n += more
	}
	if n == len(buf) && err == io.EOF {
		err = nil // the next one says so
	}
	return n, err
}

func (u *upload) sendChunk(ctx context.Context, data []byte) error {
	u.hash.Write(data)
	u.size += int64(len(data))
	k := u.chunks
	u.chunks++
	subject := u.s.chunkSubject(u.nuid)
	header := nats.Header{chunkHeader: {strconv.Itoa(k)}}
	if k == 0 { // alone: it shows whether there is a bucket
		seq, err := u.s.publish(ctx, subject, header, data)
		u.win.acks = append(u.win.acks, seq)
		return err
	}
	if k == 1 && u.absent {
		o, err := u.s.look(ctx, u.key)
		if err != nil {
			return err
		}
		if o.taken() {
			return fs.ErrExist // before all the rest is sent
		}
	}
	return u.win.publish(ctx, &nats.Msg{Subject: subject, Header: header, Data: data})
}

// abort removes the chunks that were sent, when all of them have arrived or
// been refused.
func (u *upload) abort(ctx context.Context) {
	if u.chunks == 0 {
		return
	}
	ctx = context.WithoutCancel(ctx) // each request has its deadline
	_ = u.win.drain(ctx)             // the error is known
	if err := u.s.purge(ctx, u.s.chunkSubject(u.nuid), 0); err != nil && !errors.Is(err, errNoBucket) {
		u.s.cfg.Logger.Warn("chunks of an aborted put are left behind", "bucket", u.s.cfg.Bucket, "key", u.key, "err", err)
	}
}

// commit publishes the meta and returns the one that it replaced. It expects
// what it knows of the key, so of several Puts at once each replaces another.
func (u *upload) commit(ctx context.Context, opts objstore.PutOptions) (old object, err error) {
	if err := u.complete(ctx); err != nil {
		return object{}, err
	}
	data, err := u.meta(opts)
	if err != nil {
		return object{}, err
	}
	subject := u.s.metaSubject(u.s.prefix + u.key)
	for range commitTries {
		if ctx.Err() != nil {
			return object{}, context.Cause(ctx)
		}
		header := nats.Header{
			jetstream.MsgRollup:                 {jetstream.MsgRollupSubject},
			jetstream.ExpectedLastSubjSeqHeader: {strconv.FormatUint(old.seq, 10)},
		}
		// From here on its end must be known, or the chunks stay for nobody.
		certain := context.WithoutCancel(ctx)
		_, err := u.s.publish(certain, subject, header, data)
		if err == nil {
			return old, nil
		}
		if !errors.Is(err, errConflict) && !errors.Is(err, errUnsure) {
			return object{}, err
		}
		u.unsure = u.unsure || errors.Is(err, errUnsure)
		now, lookErr := u.s.look(certain, u.key)
		switch {
		case lookErr != nil:
			return object{}, errors.Join(err, lookErr)
		case now.seq > 0 && now.NUID == u.nuid:
			return old, nil // an answer got lost
		case errors.Is(err, errUnsure) && now.seq == old.seq:
			return object{}, err // it may come yet
		case u.absent && now.taken():
			return object{}, fs.ErrExist
		case now.seq == old.seq: // another one is on its way
			if err := sleep(ctx, 2*time.Millisecond); err != nil {
				return object{}, err
			}
		}
		old = now
	}
	return object{}, objstore.Transient(fmt.Errorf("%w, %d times", errConflict, commitTries))
}

// complete makes sure that a Put which took long still has its chunks: Sweep
// removes those that look left behind.
func (u *upload) complete(ctx context.Context) error {
	if u.chunks == 0 || time.Since(u.began) < MinSweepAge/2 {
		return nil
	}
	i, err := u.s.info(ctx, u.s.chunkSubject(u.nuid), 0)
	if err != nil {
		return err
	}
	if have := i.State.Subjects[u.s.chunkSubject(u.nuid)]; have != uint64(u.chunks) {
		return fmt.Errorf("%d of %d chunks were removed while the upload went on", uint64(u.chunks)-have, u.chunks)
	}
	return nil
}
