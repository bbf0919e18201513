package natsobj

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/ltxstream/ltxstream/objstore"
)

// What we put into an object's meta beside the object store's own.
const (
	timestampHeader = "Litestream-Timestamp" // where Litestream looks for it
	timestampFormat = "2006-01-02T15:04:05.000Z07:00"
	placesKey       = "ltx-chunks" // no name of objstore's metadata has a hyphen
)

// object is one meta message.
type object struct {
	jetstream.ObjectInfo
	seq    uint64    // of the message; 0: there is none
	stored time.Time // when the server stored it
	places places    // zero: put by something else
}

func parseObject(m message) (object, error) {
	o := object{seq: m.Seq, stored: m.Time.UTC()}
	if err := json.Unmarshal(m.Data, &o.ObjectInfo); err != nil {
		return object{}, fmt.Errorf("meta message %d: %w", m.Seq, err)
	}
	o.places = parsePlaces(o.Metadata[placesKey])
	if !o.places.fit(o.ObjectInfo) {
		o.places = places{}
	}
	return o, nil
}

// live reports whether it is an object: not a mark of a deletion, not a link.
func (o *object) live() bool { return o.taken() && !o.link() }

// taken reports whether the key is: a link counts.
func (o *object) taken() bool { return o.seq > 0 && !o.Deleted }

func (o *object) link() bool { return o.Opts != nil && o.Opts.Link != nil }

// identifier is what an object's nuid must look like before it becomes part of
// a subject that is purged.
var identifier = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// hasChunks reports whether there are chunks under the object's own subject.
func (o *object) hasChunks() bool { return o.live() && o.Chunks > 0 && identifier.MatchString(o.NUID) }

// look reads the meta message of key from the leader, whatever it says; seq 0:
// there is none.
func (s *Store) look(ctx context.Context, key string) (object, error) {
	m, err := s.leader(ctx, getRequest{LastFor: s.metaSubject(s.prefix + key)})
	if errors.Is(err, errNoMessage) {
		return object{}, nil
	}
	if err != nil {
		return object{}, err
	}
	return parseObject(m)
}

// find is look for an object that must be there.
func (s *Store) find(ctx context.Context, key string) (object, error) {
	if err := ctx.Err(); err != nil {
		return object{}, context.Cause(ctx)
	}
	if err := objstore.CheckKey(key); err != nil {
		return object{}, err
	}
	o, err := s.look(ctx, key)
	switch {
	case err != nil:
		return object{}, err
	case o.taken() && o.link():
		return object{}, errors.New("it is a link to another object, which we do not follow")
	case !o.live():
		return object{}, errNoMessage
	}
	return o, nil
}

// Stat asks the leader: one request.
func (s *Store) Stat(ctx context.Context, key string) (objstore.Info, error) {
	o, err := s.find(ctx, key)
	if err != nil {
		return objstore.Info{}, named("stat", key, err)
	}
	info := o.describe(key)
	for name, value := range o.Metadata {
		if one := map[string]string{name: value}; objstore.CheckMeta(one) != nil {
			continue // ours, or of something else
		}
		if info.Meta == nil {
			info.Meta = map[string]string{}
		}
		info.Meta[name] = value
	}
	return info, nil
}

// describe returns what List tells.
func (o *object) describe(key string) objstore.Info {
	return objstore.Info{Key: key, Size: int64(o.Size), Timestamp: o.timestamp(), Modified: o.stored}
}

func (o *object) timestamp() time.Time {
	for name, values := range o.Headers {
		if !strings.EqualFold(name, timestampHeader) || len(values) == 0 {
			continue
		}
		if t, err := time.Parse(time.RFC3339Nano, values[0]); err == nil {
			return t.UTC()
		}
	}
	return time.Time{}
}

// meta returns the meta message of what was uploaded, as the object store has it.
func (u *upload) meta(opts objstore.PutOptions) ([]byte, error) {
	metadata := maps.Clone(opts.Meta)
	if u.chunks > 0 {
		if metadata == nil {
			metadata = map[string]string{}
		}
		metadata[placesKey] = thin(u.win.acks).String()
	}
	return json.Marshal(jetstream.ObjectInfo{
		ObjectMeta: jetstream.ObjectMeta{
			Name:     u.s.prefix + u.key,
			Headers:  nats.Header{timestampHeader: {opts.Timestamp.UTC().Truncate(time.Millisecond).Format(timestampFormat)}},
			Metadata: metadata,
			Opts:     &jetstream.ObjectMetaOptions{ChunkSize: uint32(u.s.chunk)},
		},
		Bucket: u.s.cfg.Bucket, NUID: u.nuid, Size: uint64(u.size), Chunks: uint32(u.chunks),
		Digest: jetstream.GetObjectDigestValue(u.hash),
	})
}
