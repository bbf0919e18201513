package publisher

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ltxstream/ltxstream/internal/pagesum"
	"github.com/ltxstream/ltxstream/wire"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/superfly/ltx"
)

// chain is the strictest reader there can be: it takes the messages of one
// database in order and refuses gaps, forks, and headers that do not say what
// the LTX file says.
type chain struct {
	db    wire.DB
	pos   ltx.Pos
	image []byte
	size  uint32 // of a page
	sums  []ltx.Checksum

	epoch  uint64
	time   time.Time
	past   map[ltx.Pos]bool
	parts  []byte
	meta   wire.Meta // of the file being joined
	first  uint64
	base   uint64 // first sequence of the newest full file
	metas  []wire.Meta
	claims []wire.Claim

	fulls, replays, junk, stale, unfinished, split, skipped, messages int
}

func newChain(db wire.DB) *chain { return &chain{db: db, past: map[ltx.Pos]bool{}} }

// errDropped says that messages were dropped for their age while they were read.
var errDropped = errors.New("messages were dropped for their age while they were read")

// errLost says that messages were sent and did not come: a fetch ends by its own
// clock, and what comes later is for nobody.
var errLost = errors.New("messages were sent and did not come")

func (c *chain) readAll(ctx context.Context, js jetstream.JetStream, stream string) error {
	s, err := js.Stream(ctx, stream)
	if err != nil {
		return err
	}
	cons, err := s.CreateConsumer(ctx, jetstream.ConsumerConfig{
		FilterSubject: c.db.Filter(), AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, InactiveThreshold: patience,
	})
	if err != nil {
		return err
	}
	defer func() { _ = s.DeleteConsumer(ctx, cons.CachedInfo().Name) }()
	last, came := uint64(0), uint64(0) // sequence read, messages
	for left := cons.CachedInfo().NumPending; left > 0; {
		// what is dropped for its age meanwhile does not come
		info, err := cons.Info(ctx)
		if err == nil && info.Delivered.Consumer != came {
			err = errLost
		}
		if err != nil || info.NumPending == 0 {
			return err
		}
		b, err := cons.Fetch(int(min(left, info.NumPending, 200)), jetstream.FetchMaxWait(time.Second))
		if err != nil {
			return err
		}
		for m := range b.Messages() {
			md, err := m.Metadata()
			if err != nil {
				return err
			}
			if came++; md.Sequence.Consumer != came {
				return errLost
			}
			left--
			if err := c.take(m.Subject(), md.Sequence.Stream, m.Headers(), m.Data()); err != nil {
				now, ierr := s.Info(ctx)
				if ierr == nil && last > 0 && now.State.FirstSeq > last+1 {
					return errDropped
				}
				return errors.Join(fmt.Errorf("message %d: %w", md.Sequence.Stream, err), ierr)
			}
			last = md.Sequence.Stream
		}
		if b.Error() != nil {
			return b.Error()
		}
	}
	return nil
}

func (c *chain) take(subject string, seq uint64, h nats.Header, data []byte) error {
	c.messages++
	if subject == c.db.EpochSubject() {
		return c.takeClaim(h)
	}
	m, err := wire.ParseMeta(h)
	switch {
	case err != nil || m.DB != c.db || subject != c.db.DataSubject():
		c.junk++
		return nil
	case m.Epoch < c.epoch:
		c.stale++
		return nil
	case c.epoch == 0:
		c.epoch = m.Epoch // the claim was dropped by age
	case m.Epoch > c.epoch:
		return fmt.Errorf("epoch %d was never claimed, the last one was %d", m.Epoch, c.epoch)
	}
	return c.takePart(m, seq, data)
}

func (c *chain) takeClaim(h nats.Header) error {
	claim, err := wire.ParseClaim(h)
	if err != nil || claim.Epoch <= c.epoch {
		c.junk++
		return nil
	}
	c.epoch = claim.Epoch
	c.claims = append(c.claims, claim)
	c.drop()
	return nil
}

func (c *chain) drop() {
	if c.meta.Parts != 0 {
		c.unfinished++
	}
	c.meta, c.parts = wire.Meta{}, nil
}

func (c *chain) takePart(m wire.Meta, seq uint64, data []byte) error {
	if m.Part == 1 {
		c.drop()
		c.meta, c.first = m, seq
	}
	want := c.meta
	want.Part, want.Base = m.Part, m.Base
	if c.meta.Parts == 0 || want != m || m.Part != c.meta.Part && m.Part != c.meta.Part+1 {
		return fmt.Errorf("part %d/%d of %s does not follow part %d/%d of %s", m.Part, m.Parts, m.Max, c.meta.Part, c.meta.Parts, c.meta.Max)
	}
	if m.Part == c.meta.Part && m.Part > 1 {
		return fmt.Errorf("part %d/%d of %s twice", m.Part, m.Parts, m.Max)
	}
	c.meta.Part = m.Part
	c.parts = append(c.parts, data...)
	if m.Part < m.Parts {
		return nil
	}
	if m.Parts > 1 {
		c.split++
	}
	file := c.parts
	c.meta, c.parts = wire.Meta{}, nil
	return c.takeFile(m, file)
}

func (c *chain) takeFile(m wire.Meta, file []byte) error {
	if c.past[m.PostPos()] {
		c.replays++
		return nil
	}
	if c.pos.IsZero() && !m.Full { // what it follows was dropped by age
		c.skipped++
		return nil
	}
	switch {
	case m.Full && m.Max <= c.pos.TXID:
		return fmt.Errorf("full file %s after %s", m.Max, c.pos)
	case !m.Full && m.PrePos() != c.pos:
		return fmt.Errorf("file %s follows %s, the chain is at %s", m.Max, m.PrePos(), c.pos)
	case !m.Full && m.Base != c.base:
		return fmt.Errorf("file %s names base %d, it is %d", m.Max, m.Base, c.base)
	case m.Timestamp.Before(c.time):
		return fmt.Errorf("file %s is of %s, the one before of %s", m.Max, m.Timestamp, c.time)
	}
	if m.Full {
		c.image, c.sums, c.base = nil, nil, c.first
		c.fulls++
	}
	if err := c.apply(m, file); err != nil {
		return fmt.Errorf("file %s: %w", m.Max, err)
	}
	c.pos, c.time = m.PostPos(), m.Timestamp
	c.past[c.pos] = true
	c.metas = append(c.metas, m)
	return nil
}

func (c *chain) apply(m wire.Meta, file []byte) error {
	dec := ltx.NewDecoder(bytes.NewReader(file))
	if err := dec.DecodeHeader(); err != nil {
		return err
	}
	c.size = m.PageSize
	c.resize(int(m.Commit))
	page := make([]byte, m.PageSize)
	for {
		var h ltx.PageHeader
		if err := dec.DecodePage(&h, page); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		copy(c.image[int(h.Pgno-1)*len(page):], page)
		c.sums[h.Pgno-1] = pagesum.Of(h.Pgno, page)
	}
	if err := dec.Close(); err != nil {
		return err
	}
	want := wire.MetaOf(dec.Header(), dec.Trailer(), int64(len(file)))
	if want.PrePos() != m.PrePos() || want.PostPos() != m.PostPos() || want.Commit != m.Commit || want.Size != m.Size || !want.Timestamp.Equal(m.Timestamp) {
		return fmt.Errorf("headers say %+v, the file %+v", m, want)
	}
	if sum := c.sum(); sum != m.Post {
		return fmt.Errorf("pages add up to %s, the header says %s", sum, m.Post)
	}
	return nil
}

// resize makes room for n pages; new ones are zeros.
func (c *chain) resize(n int) {
	zero := make([]byte, c.size)
	for len(c.sums) < n {
		c.image = append(c.image, zero...)
		c.sums = append(c.sums, pagesum.Of(uint32(len(c.sums)+1), zero))
	}
	c.image, c.sums = c.image[:n*int(c.size)], c.sums[:n]
}

func (c *chain) sum() ltx.Checksum {
	x := ltx.ChecksumFlag
	for _, s := range c.sums {
		x ^= s &^ ltx.ChecksumFlag
	}
	return x
}
