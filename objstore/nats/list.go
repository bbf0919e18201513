package natsobj

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/ltxstream/ltxstream/objstore"
)

// A page of a listing: so many metas in one request, the server gives at most
// 1,024, and so many bytes of subjects in it.
const (
	pageNames    = 500
	maxPageBytes = 256 << 10
)

// List gets the names from the index and the tail first, all of them, and then
// their metas page by page. The leader's answers say what there is; the
// replicas that give the metas are held against them.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		err := s.list(ctx, prefix, after, func(i objstore.Info) bool { return yield(i, nil) })
		if s.cfg.Create && errors.Is(err, errNoBucket) {
			return // the first Put makes it
		}
		if err != nil {
			yield(objstore.Info{}, named("list", s.String()+"/"+prefix, err))
		}
	}
}

func (s *Store) list(ctx context.Context, prefix, after string, yield func(objstore.Info) bool) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	names, asOf, err := s.names(ctx, s.prefix+prefix, s.prefix+after)
	if err != nil {
		return err
	}
	for len(names) > 0 {
		page := s.page(names)
		names = names[len(page):]
		metas, err := s.metas(ctx, page, asOf)
		if err != nil {
			return err
		}
		for _, name := range page {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			o, ok := metas[name]
			key := name[len(s.prefix):]
			if !ok || !o.live() || objstore.CheckKey(key) != nil {
				continue
			}
			if !yield(o.describe(key)) {
				return nil
			}
		}
	}
	return nil
}

// names returns the names that begin with prefix and are greater than after, in
// order, and the sequence of the stream they are as of. Not every one has an
// object. The tail comes first: a name that moves to the index meanwhile is
// seen twice, never missed.
func (s *Store) names(ctx context.Context, prefix, after string) (names []string, asOf uint64, err error) {
	filter, ok := s.namesUnder(prefix)
	names, err = s.tailNames(ctx, prefix)
	if err != nil || !ok {
		return nil, 0, err
	}
	i, err := s.subjects(ctx, filter, func(subject string) { names = append(names, s.nameOf(subject)) })
	if err != nil {
		return nil, 0, err
	}
	if same, err := s.tail.isOf(ctx, i.Created); err != nil {
		return nil, 0, err
	} else if !same {
		s.seen.forget()
		return s.names(ctx, prefix, after)
	}
	names = slices.DeleteFunc(names, func(name string) bool { return name <= after || !strings.HasPrefix(name, prefix) })
	slices.Sort(names)
	return slices.Compact(names), i.State.LastSeq, nil
}

// page returns the first of names.
func (s *Store) page(names []string) []string {
	bytes := 0
	for i, name := range names {
		if bytes += len(name)*3/2 + 50; i == pageNames || i > 0 && bytes > s.pageBytes {
			return names[:i]
		}
	}
	return names
}

// metas returns the metas of those names that have one, from a replica that
// has all of the stream up to asOf.
func (s *Store) metas(ctx context.Context, names []string, asOf uint64) (map[string]object, error) {
	req := getRequest{}
	for _, name := range names {
		req.MultiLast = append(req.MultiLast, s.metaSubject(name))
	}
	found := make(map[string]object, len(names))
	for start := time.Now(); ; {
		b, err := s.batch(ctx, req)
		switch {
		case errors.Is(err, errNoMessage), errors.Is(err, nats.ErrNoResponders):
			return found, s.metasOfLeader(ctx, names, found)
		case err != nil:
			return nil, err
		case b.upTo >= asOf:
			for _, m := range b.msgs {
				if o, err := parseObject(m); err == nil {
					found[o.Name] = o
				}
			}
			return found, nil
		case time.Since(start) > s.cfg.Timeout:
			return nil, objstore.Transient(fmt.Errorf("a replica of %s is at %d and does not come to %d", s.stream, b.upTo, asOf))
		}
		if err := sleep(ctx, 5*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// metasOfLeader is for what no replica has: nothing at all, as far as it knows.
func (s *Store) metasOfLeader(ctx context.Context, names []string, found map[string]object) error {
	for _, name := range names {
		m, err := s.leader(ctx, getRequest{LastFor: s.metaSubject(name)})
		if errors.Is(err, errNoMessage) {
			continue
		}
		if err != nil {
			return err
		}
		if o, err := parseObject(m); err == nil {
			found[name] = o
		}
	}
	return nil
}
