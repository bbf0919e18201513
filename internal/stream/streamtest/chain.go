package streamtest

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/wire"
)

// File is one LTX file and what its headers say, without part fields.
type File struct {
	Meta wire.Meta
	Data []byte
}

// Chain is a made-up database whose every change becomes an LTX file that
// continues the one before. Not safe for concurrent use.
type Chain struct {
	DB       wire.DB
	Writer   string
	Epoch    uint64
	PageSize uint32
	Pages    [][]byte // page n at n-1
	Pos      ltx.Pos
	Base     uint64 // sequence of the newest full file's first message
	LastSeq  uint64 // what the next publish expects

	rnd *rand.Rand
	now int64
}

// NewChain returns a chain for db with nothing in it. Equal seeds make equal
// chains.
func NewChain(db wire.DB, seed uint64) *Chain {
	return &Chain{DB: db, Writer: "writer-1", Epoch: 1, PageSize: 512, rnd: rand.New(rand.NewPCG(seed, 7)), now: 1_700_000_000_000}
}

// Full makes a full file; it grows an empty database to pages first.
func (c *Chain) Full(t testing.TB, pages int) File {
	t.Helper()
	for len(c.Pages) < pages {
		c.Pages = append(c.Pages, c.randomPage())
	}
	all := make(map[uint32][]byte, len(c.Pages))
	for i, p := range c.Pages {
		all[uint32(i+1)] = p
	}
	return c.file(t, all, true)
}

// Step makes a file that changes n random pages.
func (c *Chain) Step(t testing.TB, n int) File {
	t.Helper()
	changed := make(map[uint32][]byte, n)
	for len(changed) < min(n, len(c.Pages)) {
		changed[uint32(c.rnd.IntN(len(c.Pages))+1)] = c.randomPage()
	}
	return c.file(t, changed, false)
}

// Grow makes the first, full file of so many pages, or a file that changes n.
func (c *Chain) Grow(t testing.TB, pages, n int) File {
	t.Helper()
	if c.Pos.IsZero() {
		return c.Full(t, pages)
	}
	return c.Step(t, n)
}

// File makes a file of the pages given, which become the database's.
func (c *Chain) File(t testing.TB, changed map[uint32][]byte, full bool) File {
	t.Helper()
	return c.file(t, changed, full)
}

func (c *Chain) randomPage() []byte {
	p := make([]byte, c.PageSize)
	for i := range p {
		p[i] = byte(c.rnd.Uint32()) & 0x3f
	}
	return p
}

func (c *Chain) file(t testing.TB, changed map[uint32][]byte, full bool) File {
	t.Helper()
	for pgno, data := range changed {
		for uint32(len(c.Pages)) < pgno {
			c.Pages = append(c.Pages, make([]byte, c.PageSize))
		}
		c.Pages[pgno-1] = data
	}
	c.now += 7
	h := ltx.Header{
		Version: ltx.Version, PageSize: c.PageSize, Commit: uint32(len(c.Pages)),
		MinTXID: c.Pos.TXID + 1, MaxTXID: c.Pos.TXID + 1, Timestamp: c.now, PreApplyChecksum: c.Pos.PostApplyChecksum,
	}
	post := ltx.Checksum(ltx.ChecksumFlag)
	for i, p := range c.Pages {
		post = ltx.ChecksumFlag | (post ^ ltx.ChecksumPage(uint32(i+1), p))
	}
	f := File{Data: Encode(t, h, changed, post)}
	f.Meta = wire.MetaOf(h, ltx.Trailer{PostApplyChecksum: post}, int64(len(f.Data)))
	f.Meta.DB, f.Meta.Writer, f.Meta.Epoch = c.DB, c.Writer, c.Epoch
	f.Meta.Full = full
	c.Pos = f.Meta.PostPos()
	return f
}

// Encode writes an LTX file of the pages given.
func Encode(t testing.TB, h ltx.Header, pages map[uint32][]byte, post ltx.Checksum) []byte {
	t.Helper()
	var b bytes.Buffer
	enc, err := ltx.NewEncoder(&b)
	if err != nil {
		t.Fatal(err)
	}
	if err := enc.EncodeHeader(h); err != nil {
		t.Fatal(err)
	}
	for pgno := uint32(1); pgno <= h.Commit; pgno++ {
		if p, ok := pages[pgno]; ok {
			if err := enc.EncodePage(ltx.PageHeader{Pgno: pgno}, p); err != nil {
				t.Fatal(err)
			}
		}
	}
	enc.SetPostApplyChecksum(post)
	if err := enc.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Messages cuts f into messages of at most partSize bytes of body, with the
// Ltx-Base hint of c.
func (c *Chain) Messages(f File, partSize int) []*nats.Msg {
	meta := f.Meta
	if !meta.Full || c.Base != 0 {
		meta.Base = c.Base
	}
	meta.Parts = wire.PartCount(meta.Size, partSize)
	msgs := make([]*nats.Msg, 0, meta.Parts)
	for part := 1; part <= meta.Parts; part++ {
		meta.Part = part
		off, n := wire.PartRange(meta.Size, partSize, part)
		msgs = append(msgs, &nats.Msg{Subject: c.DB.DataSubject(), Header: meta.Header(), Data: f.Data[off : off+n]})
	}
	return msgs
}

// Publish publishes f in parts of partSize (0: one message) under the fence,
// and returns the sequence of its last message.
func (c *Chain) Publish(t testing.TB, js jetstream.JetStream, f File, partSize int) uint64 {
	t.Helper()
	if partSize == 0 {
		partSize = max(len(f.Data), 1)
	}
	for i, m := range c.Messages(f, partSize) {
		c.publish(t, js, m)
		if f.Meta.Full && i == 0 {
			c.Base = c.LastSeq
		}
	}
	return c.LastSeq
}

// Claim publishes a claim for the chain's epoch and writer.
func (c *Chain) Claim(t testing.TB, js jetstream.JetStream) uint64 {
	t.Helper()
	claim := wire.Claim{Epoch: c.Epoch, Writer: c.Writer, Host: "test", PID: 1, Pos: c.Pos, Time: time.UnixMilli(c.now).UTC()}
	c.publish(t, js, &nats.Msg{Subject: c.DB.EpochSubject(), Header: claim.Header()})
	return c.LastSeq
}

func (c *Chain) publish(t testing.TB, js jetstream.JetStream, m *nats.Msg) {
	t.Helper()
	ack, err := js.PublishMsg(context.Background(), m, jetstream.WithExpectLastSequenceForSubject(c.LastSeq, c.DB.Filter()))
	if err != nil {
		t.Fatalf("publish on %s: %v", m.Subject, err)
	}
	c.LastSeq = ack.Sequence
}

// Inject publishes m as anybody could, and moves the chain's fence past it. A
// message that the server drops as a duplicate is sent until its memory of
// ids, which the test keeps short, has passed.
func (c *Chain) Inject(t testing.TB, js jetstream.JetStream, m *nats.Msg) uint64 {
	t.Helper()
	var ack *jetstream.PubAck
	Eventually(t, "stored", func() bool {
		var err error
		if ack, err = js.PublishMsg(context.Background(), m); err != nil {
			t.Fatalf("inject on %s: %v", m.Subject, err)
		}
		return !ack.Duplicate
	})
	c.LastSeq = max(c.LastSeq, ack.Sequence)
	return ack.Sequence
}
