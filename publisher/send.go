package publisher

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ltxstream/ltxstream/internal/capture"
	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/wire"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/superfly/ltx"
)

const (
	// maxPart is the most bytes of an LTX file in one message. Larger ones
	// gain nothing and cost memory on every hop.
	maxPart = 1 << 20
	// headerRoom is kept free of a server's maximal payload, which counts
	// headers too.
	headerRoom = 4 << 10
	ackWait    = 3 * time.Second
	lookEvery  = time.Minute
	// maxTries is how often a message is sent before the session begins anew.
	maxTries = 3
)

// partial is a file of several parts on its way.
type partial struct {
	txid  ltx.TXID
	post  ltx.Checksum
	epoch uint64
	parts int
	size  int    // bytes of a part, as it is cut here
	done  int    // parts stored
	first uint64 // sequence of part 1
}

func partialOf(m wire.Meta, size int) partial {
	return partial{txid: m.Max, post: m.Post, epoch: m.Epoch, parts: m.Parts, size: size}
}

// is reports whether m is of the same file, cut in the same way, under the same
// claim.
func (p partial) is(m wire.Meta, size int) bool {
	p.done, p.first = 0, 0
	return p == partialOf(m, size)
}

// continues reports whether the head is the part that was stored last, or the
// one that was under way then; from there the file can go on.
func (r *runner) continues(head stream.Head) bool {
	m := head.Data.Meta
	if !r.partial.is(m, r.partSize()) || m.Writer != r.c.Writer() || m.Part != r.partial.done && m.Part != r.partial.done+1 {
		return false
	}
	r.stored(m, head.Data.Seq)
	return true
}

func (r *runner) stored(m wire.Meta, seq uint64) {
	r.partial.done = m.Part
	if m.Part == 1 {
		r.partial.first = seq
	}
}

// publish publishes f, part by part, and drops it from the spool.
func (r *runner) publish(ctx context.Context, f capture.File) error {
	started := time.Now()
	content, err := f.Open()
	if err != nil {
		return err
	}
	defer content.Close()
	m := r.metaOf(f)
	size := r.partSize()
	m.Parts = wire.PartCount(f.Size, size)
	if !r.partial.is(m, size) {
		r.partial = partialOf(m, size)
	}
	for m.Part = r.partial.done + 1; m.Part <= m.Parts; m.Part++ {
		data, err := r.partOf(f, content, size, m.Part)
		if err != nil {
			return err
		}
		if err := r.publishPart(ctx, m, data); err != nil {
			return err
		}
	}
	return r.published(f, m, time.Since(started))
}

func (r *runner) metaOf(f capture.File) wire.Meta {
	m := wire.MetaOf(f.Header, f.Trailer, f.Size)
	m.DB, m.Writer, m.Epoch, m.Full = r.cfg.DB, r.c.Writer(), r.claim.Epoch, f.Full || m.Full
	r.mu.Lock()
	defer r.mu.Unlock()
	m.Base = r.mu.base.seq // of a full file: the one before, for who finds this one damaged or half there
	return m
}

// partSize is what fits into a message, by the server's word and the stream's.
func (r *runner) partSize() int {
	limit := r.cfg.JS.Conn().MaxPayload()
	if n := int64(r.st.Config().MaxMsgSize); n > 0 {
		limit = min(limit, n)
	}
	return int(max(min(limit-headerRoom, maxPart), limit/4, 1))
}

// partOf returns the bytes of one part, valid until the next call.
func (r *runner) partOf(f capture.File, content capture.Content, size, part int) ([]byte, error) {
	off, n := wire.PartRange(f.Size, size, part)
	if b := f.Bytes(); b != nil {
		return b[off : off+n], nil
	}
	if int64(cap(r.buf)) < n {
		r.buf = make([]byte, n)
	}
	b := r.buf[:n]
	if _, err := content.ReadAt(b, off); err != nil {
		return nil, fmt.Errorf("read spooled ltx file %s: %w", f.TXID(), err)
	}
	return b, nil
}

// publishPart stores one message. A refusal, or an answer that does not come,
// is settled by the head of the stream.
func (r *runner) publishPart(ctx context.Context, m wire.Meta, data []byte) error {
	r.cfg.crash("part")
	middle := 1 < m.Part && m.Part < m.Parts
	for try := 1; ; {
		put, fenced := r.store, true
		if middle && r.alone && try == 1 {
			put, fenced = r.storeUnfenced, false
		}
		seq, err := put(ctx, &nats.Msg{Subject: r.cfg.DB.DataSubject(), Header: m.Header(), Data: data})
		if err == nil {
			r.alone, r.seq = seq == r.seq+1, seq
			r.stored(m, seq)
			r.cfg.crash("part stored")
			if !fenced && !r.alone {
				return r.stillOurs(ctx)
			}
			return nil
		}
		answer, settleErr := r.settle(ctx, m, data, err)
		switch {
		case settleErr != nil || answer == isStored:
			return settleErr
		case answer == isOpen:
			try++
		}
		if try > maxTries {
			return err
		}
	}
}

var (
	errMoved     = errors.New("the stream is not where it was left")
	errDuplicate = errors.New("the server took the message for one that it has")
)

// store publishes one message that must be the next on our subjects.
func (r *runner) store(ctx context.Context, m *nats.Msg) (seq uint64, err error) {
	return r.send(ctx, m, jetstream.WithExpectLastSequenceForSubject(r.seq, r.cfg.DB.Filter()))
}

// storeUnfenced publishes a part between the first and the last one of a file. For
// the fence the server reads the message before, and keeps its block in memory,
// which is the most that it does for a large file. So such parts go without, for as
// long as the sequences show that nobody else publishes; the last part never does,
// and without it the others are nothing (ADR 0007).
func (r *runner) storeUnfenced(ctx context.Context, m *nats.Msg) (seq uint64, err error) {
	return r.send(ctx, m)
}

// stillOurs makes sure that what somebody else published before a part that was
// not fenced is no claim.
func (r *runner) stillOurs(ctx context.Context) error {
	head, err := r.head(ctx)
	if err != nil {
		return err
	}
	return r.fenced(head)
}

// send publishes one message. One that is under way is waited for even when ctx
// ends, so that its fate is known, yet not when the connection is lost.
func (r *runner) send(ctx context.Context, m *nats.Msg, opts ...jetstream.PublishOpt) (seq uint64, err error) {
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.times.ack)
	defer cancel()
	away := func() bool { return errors.Is(context.Cause(ctx), stream.ErrAway) }
	defer context.AfterFunc(ctx, func() {
		if away() {
			cancel()
		}
	})()
	ack, err := r.cfg.JS.PublishMsg(wait, m, append(opts, jetstream.WithRetryAttempts(0))...)
	switch {
	case err != nil && away():
		return 0, stream.ErrAway
	case err != nil:
		return 0, r.st.ExplainPublish(m.Subject, err)
	case ack.Duplicate:
		return 0, errDuplicate
	}
	return ack.Sequence, nil
}

// An answer is what the head of the stream says about a publish that failed.
type answer int

const (
	isOpen   answer = iota // not stored, may be tried again
	isStored               // stored, the acknowledgement was lost
	isMoved                // not stored, and somebody's junk was: try again behind it
)

// settle reads the head after a publish that failed. An error ends the session.
func (r *runner) settle(ctx context.Context, m wire.Meta, data []byte, cause error) (answer, error) {
	switch stream.Classify(cause) {
	case stream.Full, stream.Permanent, stream.Canceled, stream.NoStream:
		return 0, cause
	}
	if errors.Is(cause, stream.ErrAway) {
		return 0, cause // the next session reads the head
	}
	ctx, cancel := context.WithTimeout(ctx, ackWait)
	defer cancel()
	head, err := r.head(ctx)
	if err != nil {
		return 0, errors.Join(cause, err)
	}
	if err := r.fenced(head); err != nil {
		return 0, err
	}
	if head.LastSeq == r.seq {
		r.anew = r.anew || errors.Is(cause, errDuplicate)
		return isOpen, nil
	}
	passed, err := r.passOver(ctx, &head)
	if err != nil {
		return 0, errors.Join(cause, err)
	}
	switch d := head.Data; {
	case head.LastSeq > r.seq && (d == nil || d.Seq <= r.seq):
		if !passed {
			r.noteForeign(head.LastSeq, nil)
		}
		r.seq = head.LastSeq
		return isMoved, nil
	case d != nil && d.Seq > r.seq && d.Meta.MsgID() == m.MsgID() && d.Meta.Writer == m.Writer && bytes.Equal(d.Data, data):
		r.seq = head.LastSeq
		r.stored(m, d.Seq)
		r.bump(func(s *counters) { s.LostAcks++ })
		return isStored, nil
	}
	return 0, fmt.Errorf("%w: its last sequence is %d, ours was %d: %w", errMoved, head.LastSeq, r.seq, cause)
}

// published records that f is stored whole.
func (r *runner) published(f capture.File, m wire.Meta, took time.Duration) error {
	r.sent, r.progress = f.TXID(), true
	if r.full != nil && m.Full && m.Max > r.full.TXID {
		r.full = nil
	}
	r.bump(func(s *counters) {
		s.Files++
		s.Bytes += uint64(f.Size)
		s.Messages += uint64(m.Parts)
	})
	r.noteError(nil)
	r.setAcked(f.Pos())
	if m.Full {
		r.newBase(r.partial.first)
	}
	r.partial = partial{}
	r.cfg.Metrics.published(r.cfg.DB, f, m.Parts, took)
	r.cfg.crash("published")
	err := r.c.Acked(f.TXID())
	r.cfg.crash("acknowledged")
	return err
}
