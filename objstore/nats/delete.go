package natsobj

import (
	"context"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/ltxstream/ltxstream/objstore"
)

const deletesAtOnce = 16

// Delete leaves nothing of the objects in the stream: per object one request
// for its meta and three that purge the meta, its chunks and its name.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	if ctx.Err() != nil {
		return named("delete", s.String(), context.Cause(ctx))
	}
	if len(keys) == 0 {
		return nil
	}
	i, err := s.info(ctx, "", 0)
	if err != nil {
		return named("delete", keys[0], err)
	}
	var mu sync.Mutex
	var failed *objstore.DeleteError
	var g errgroup.Group
	g.SetLimit(deletesAtOnce)
	for _, key := range keys {
		g.Go(func() error {
			if err := s.delete(ctx, key, i.State.LastSeq); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed = failed.Add(key, err)
			}
			return nil
		})
	}
	_ = g.Wait() // they report by failed
	if err := failed.Err(); err != nil || i.Config.Replicas <= 1 {
		return err
	}
	// A purge has no sequence by which a listing could tell a replica that has
	// not got it: this message has.
	m := onlyOne(s.fenceSubject(), nil)
	_, err = s.publish(ctx, m.Subject, m.Header, m.Data)
	return named("delete", keys[0], err)
}

func (s *Store) delete(ctx context.Context, key string, asOf uint64) error {
	if err := objstore.CheckKey(key); err != nil {
		return err
	}
	o, err := s.look(ctx, key)
	if err != nil || o.seq == 0 {
		return err
	}
	return s.erase(ctx, key, o, asOf)
}

// erase removes the meta first: from then on there is no object. asOf is a
// sequence that the stream had reached before o was read: a name up to it
// belongs to what is deleted, a later one to an object that was put meanwhile.
func (s *Store) erase(ctx context.Context, key string, o object, asOf uint64) error {
	if err := s.purge(ctx, s.metaSubject(s.prefix+key), o.seq); err != nil {
		return err
	}
	if o.hasChunks() {
		if err := s.purge(ctx, s.chunkSubject(o.NUID), 0); err != nil {
			return err
		}
	}
	return s.purge(ctx, s.nameSubject(s.prefix+key), asOf)
}
