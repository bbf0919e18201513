package natsobj

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"

	"github.com/ltxstream/ltxstream/objstore"
)

// maxAhead is how many chunks a reader asks for before they are read; it
// begins with fewer.
const maxAhead = 16

// chunkHeader numbers the chunks of an object, from 0. Other readers of the
// bucket do not look at it.
const chunkHeader = "Ltx-Chunk"

// chunks reads the chunks of an object whose places are known.
type chunks struct {
	s       *Store
	o       object
	subject string
	at, end int // next chunk, and the one behind the last
	skip    int // bytes of the next chunk before the range

	ahead int // chunks to have asked for
	asked int // the next one to ask for
	sub   *nats.Subscription
	came  map[int]*nats.Msg
}

func (s *Store) openChunks(o object, offset, left int64) *chunks {
	size := int64(o.Opts.ChunkSize)
	c := &chunks{s: s, o: o, subject: s.chunkSubject(o.NUID), at: int(offset / size), skip: int(offset % size), ahead: 2, came: map[int]*nats.Msg{}}
	c.end = int((offset+left-1)/size) + 1
	c.asked = c.at
	return c
}

func (c *chunks) close() {
	if c.sub != nil {
		_ = c.sub.Unsubscribe()
	}
}

func (c *chunks) next(ctx context.Context) ([]byte, error) {
	if c.at == c.end {
		return nil, fmt.Errorf("%w: it ends early", objstore.ErrDamaged)
	}
	m, err := c.take(ctx)
	if err != nil {
		return nil, err
	}
	want := min(uint64(c.o.Opts.ChunkSize), c.o.Size-uint64(c.at)*uint64(c.o.Opts.ChunkSize))
	if uint64(len(m.Data)) != want {
		return nil, fmt.Errorf("%w: chunk %d has %d bytes, want %d", objstore.ErrDamaged, c.at, len(m.Data), want)
	}
	data := m.Data[c.skip:]
	c.at, c.skip = c.at+1, 0
	return data, nil
}

// take returns the next chunk: the one asked for where it is right, else found
// with more care.
func (c *chunks) take(ctx context.Context) (message, error) {
	if c.end-c.at == 1 && c.sub == nil {
		return c.search(ctx, c.at)
	}
	if err := c.ask(ctx); err != nil {
		return message{}, err
	}
	for c.came[c.at] == nil {
		m, err := c.s.next(ctx, c.sub, c.s.directSubject())
		if errors.Is(err, nats.ErrNoResponders) {
			return c.search(ctx, c.at) // says why, or asks the leader
		}
		if err != nil {
			return message{}, err
		}
		k, err := strconv.Atoi(m.Subject[len(c.sub.Subject)-1:])
		if err != nil {
			return message{}, fmt.Errorf("answer on %s: %w", m.Subject, err)
		}
		c.came[k] = m
	}
	m := c.came[c.at]
	delete(c.came, c.at)
	if one, err := c.s.directMessage(m); err == nil && chunkIndex(one) == c.at {
		return one, nil
	}
	return c.search(ctx, c.at)
}

// ask asks for the chunks ahead, where they should be.
func (c *chunks) ask(ctx context.Context) error {
	if c.sub == nil {
		sub, err := c.s.nc.SubscribeSync(c.s.nc.NewInbox() + ".*")
		if err != nil {
			return c.s.explain(ctx, c.s.directSubject(), err)
		}
		_ = sub.SetPendingLimits(-1, -1) // maxAhead bounds it
		c.sub = sub
	}
	for ; c.asked < min(c.at+c.ahead, c.end); c.asked++ {
		req := getRequest{NextFor: c.subject, Seq: c.around(c.asked).guess(c.asked)}
		data, err := json.Marshal(req)
		if err != nil {
			return err
		}
		inbox := c.sub.Subject[:len(c.sub.Subject)-1] + strconv.Itoa(c.asked)
		if err := c.s.nc.PublishRequest(c.s.directSubject(), inbox, data); err != nil {
			return c.s.explain(ctx, c.s.directSubject(), err)
		}
	}
	c.ahead = min(c.ahead+1, maxAhead)
	return nil
}

func (c *chunks) around(k int) span { return c.o.places.around(k, int(c.o.Chunks), c.o.seq) }

// chunkIndex returns which chunk m is, -1 where it does not say.
func chunkIndex(m message) int {
	k, err := strconv.Atoi(m.header.Get(chunkHeader))
	if err != nil {
		return -1
	}
	return k
}

// search finds chunk k by asking for the first of the object's chunks from a
// sequence on: by proportion and, every other time, in the middle. What a
// replica does not have the leader is asked for.
func (c *chunks) search(ctx context.Context, k int) (message, error) {
	sp := c.around(k)
	for turn := 0; sp.lowSeq < sp.highSeq; turn++ {
		at := sp.guess(k)
		if middle := sp.lowSeq + (sp.highSeq-sp.lowSeq)/2; turn%2 == 1 && middle > sp.lowSeq+uint64(k-sp.low) {
			at = middle
		}
		m, err := c.s.chunkFrom(ctx, c.subject, at)
		if err != nil {
			return message{}, err
		}
		switch j := chunkIndex(m); {
		case j == k:
			return m, nil
		case j < 0 || m.Subject != c.subject:
			return message{}, fmt.Errorf("%w: message %d is none of its chunks", objstore.ErrDamaged, m.Seq)
		case j < k && m.Seq > sp.lowSeq:
			sp.low, sp.lowSeq = j, m.Seq
		case j > k && at < sp.highSeq:
			sp.high, sp.highSeq = j, at
		default:
			return message{}, fmt.Errorf("%w: chunk %d is at message %d, out of order", objstore.ErrDamaged, j, m.Seq)
		}
	}
	return message{}, fmt.Errorf("%w: chunk %d is missing", objstore.ErrDamaged, k)
}

// chunkFrom returns the first message on a chunk subject from seq on. It is
// acknowledged and must be there: where no replica has it, and the leader
// neither, the object is gone.
func (s *Store) chunkFrom(ctx context.Context, subject string, seq uint64) (message, error) {
	req := getRequest{NextFor: subject, Seq: seq}
	m, err := s.direct(ctx, req)
	if !errors.Is(err, errNoMessage) && !errors.Is(err, nats.ErrNoResponders) {
		return m, err
	}
	if m, err = s.leader(ctx, req); errors.Is(err, errNoMessage) {
		return message{}, errGone
	}
	return m, err
}
