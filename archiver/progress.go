package archiver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/ltxstream/ltxstream/wire"
)

// record says, for everybody who reads the stream, how far an archive is. It is
// written after the files are durable, and it is what trimming rests on.
type record struct {
	TXID     string    `json:"txid"`
	Checksum string    `json:"checksum"`
	FirstSeq uint64    `json:"first_seq"` // of the newest file: it is never trimmed
	LastSeq  uint64    `json:"last_seq"`
	Time     time.Time `json:"time"` // of the newest transaction
	// Created tells of which stream the sequences are: the bucket outlives a stream
	// that is deleted and made again. Zero: they are of none that is there.
	Created time.Time `json:"created,omitzero"`
}

// progress is the bucket of records, by destination and database, and a copy of
// it that is kept up to date.
type progress struct {
	kv jetstream.KeyValue

	mu struct {
		sync.Mutex
		records map[string]record // by key
	}
}

// openProgress opens or makes the bucket "<stream>-archive".
func openProgress(ctx context.Context, js jetstream.JetStream, stream string, replicas int) (*progress, error) {
	name := stream + "-archive"
	kv, err := js.KeyValue(ctx, name)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		kv, err = js.CreateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket: name, Description: "how far each archive of stream " + stream + " is", History: 1, Replicas: max(replicas, 1),
		})
		if errors.Is(err, jetstream.ErrBucketExists) {
			kv, err = js.KeyValue(ctx, name)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", name, err)
	}
	p := &progress{kv: kv}
	p.mu.records = map[string]record{}
	return p, nil
}

func progressKey(dest string, db wire.DB) string { return dest + "." + string(db) }

// put records an endpoint in the stream that was created at a time.
func (p *progress) put(ctx context.Context, dest string, db wire.DB, e endpoint, created time.Time) error {
	r := record{TXID: e.pos.TXID.String(), Checksum: e.pos.PostApplyChecksum.String(), FirstSeq: e.firstSeq, LastSeq: e.lastSeq, Time: e.time, Created: created}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if _, err := p.kv.Put(ctx, progressKey(dest, db), b); err != nil {
		return fmt.Errorf("record progress: %w", err)
	}
	return nil
}

// watch keeps the copy up to date until ctx ends.
func (p *progress) watch(ctx context.Context) error {
	w, err := p.kv.WatchAll(ctx)
	if err != nil {
		return fmt.Errorf("watch progress: %w", err)
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case entry, ok := <-w.Updates():
			if !ok {
				return errors.New("watch progress: it ended")
			}
			if entry != nil { // nil: all that was there before has been told
				p.see(entry)
			}
		}
	}
}

func (p *progress) see(entry jetstream.KeyValueEntry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if entry.Operation() != jetstream.KeyValuePut {
		delete(p.mu.records, entry.Key())
		return
	}
	var r record
	if err := json.Unmarshal(entry.Value(), &r); err != nil {
		r = record{} // of somebody else: nothing may be trimmed
	}
	p.mu.records[entry.Key()] = r
}

// floor is the sequence, in the stream that was created at a time, before which
// every archive that was ever written has everything of db, those of wanted among
// them; 0: not all of them have any, or one has told of another stream last.
func (p *progress) floor(db wire.DB, wanted []Destination, created time.Time) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range wanted {
		if _, ok := p.mu.records[progressKey(d.Name, db)]; !ok && d.takes(db) {
			return 0
		}
	}
	var floor uint64
	for key, r := range p.mu.records {
		if _, name, _ := strings.Cut(key, "."); name != string(db) {
			continue
		}
		if r.FirstSeq == 0 || !r.Created.Equal(created) {
			return 0
		}
		if floor == 0 || r.FirstSeq < floor {
			floor = r.FirstSeq
		}
	}
	return floor
}

// databases are those that have any record.
func (p *progress) databases() map[wire.DB]bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := map[wire.DB]bool{}
	for key := range p.mu.records {
		_, name, _ := strings.Cut(key, ".")
		all[wire.DB(name)] = true
	}
	return all
}
