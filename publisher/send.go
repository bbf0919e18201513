package publisher

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/ltxstream/ltxstream/internal/capture"
	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/wire"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// maxPart is the most bytes of an LTX file in one message. Larger ones
	// gain nothing and cost memory on every hop.
	maxPart = 1 << 20
	// headerRoom is kept free of a server's maximal payload, which counts
	// headers too.
	headerRoom = 4 << 10
	ackWait    = 3 * time.Second
)

// claim publishes that this publisher goes on from here, unless the head is
// already its own claim or what it published under it.
func (r *runner) claim(ctx context.Context, head stream.Head) error {
	r.mu.Lock()
	epoch := r.mu.epoch
	r.mu.Unlock()
	if epoch != 0 && head.Claim != nil && r.ours(head.Claim, epoch) {
		return nil
	}
	if head.Claim != nil {
		epoch = max(epoch, head.Claim.Epoch)
	}
	if head.Data != nil {
		epoch = max(epoch, head.Data.Meta.Epoch)
	}
	c := wire.Claim{Epoch: epoch + 1, Writer: r.c.Writer(), Host: r.host, PID: os.Getpid(), Pos: r.claimed(), Time: time.Now()}
	seq, err := r.store(ctx, &nats.Msg{Subject: r.cfg.DB.EpochSubject(), Header: c.Header()})
	if err != nil {
		return fmt.Errorf("claim: %w", err)
	}
	r.seq = seq
	r.mu.Lock()
	r.mu.epoch = c.Epoch
	r.mu.Unlock()
	r.cfg.Logger.Info("database claimed", "epoch", c.Epoch, "txid", c.Pos.TXID.String())
	return nil
}

// store publishes one message that must be the next on our subjects.
func (r *runner) store(ctx context.Context, m *nats.Msg) (seq uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, ackWait)
	defer cancel()
	ack, err := r.cfg.JS.PublishMsg(ctx, m, jetstream.WithExpectLastSequenceForSubject(r.seq, r.cfg.DB.Filter()), jetstream.WithRetryAttempts(0))
	if err != nil {
		return 0, r.st.ExplainPublish(m.Subject, err)
	}
	return ack.Sequence, nil
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
	first := uint64(0)
	for m.Part = 1; m.Part <= m.Parts; m.Part++ {
		data, err := partOf(f, content, size, m.Part)
		if err != nil {
			return err
		}
		if err := r.publishPart(ctx, m, data); err != nil {
			return err
		}
		if m.Part == 1 {
			first = r.seq
		}
	}
	return r.published(f, m, first, time.Since(started))
}

func (r *runner) metaOf(f capture.File) wire.Meta {
	m := wire.MetaOf(f.Header, f.Trailer, f.Size)
	m.DB, m.Writer, m.Full = r.cfg.DB, r.c.Writer(), f.Full || m.Full
	r.mu.Lock()
	defer r.mu.Unlock()
	m.Epoch = r.mu.epoch
	if !m.Full {
		m.Base = r.mu.base.seq
	}
	return m
}

func (r *runner) partSize() int {
	return min(maxPart, int(r.cfg.JS.Conn().MaxPayload())-headerRoom)
}

func partOf(f capture.File, content capture.Content, size, part int) ([]byte, error) {
	off, n := wire.PartRange(f.Size, size, part)
	if b := f.Bytes(); b != nil {
		return b[off : off+n], nil
	}
	b := make([]byte, n)
	if _, err := content.ReadAt(b, off); err != nil {
		return nil, fmt.Errorf("read spooled ltx file %s: %w", f.TXID(), err)
	}
	return b, nil
}

// publishPart stores one message. An error without an answer of the server is
// settled by the head of the stream.
func (r *runner) publishPart(ctx context.Context, m wire.Meta, data []byte) error {
	for try := 0; ; try++ {
		seq, err := r.store(ctx, &nats.Msg{Subject: r.cfg.DB.DataSubject(), Header: m.Header(), Data: data})
		if err == nil {
			r.seq = seq
			return nil
		}
		stored, settleErr := r.settle(ctx, m, err)
		if settleErr != nil || stored {
			return settleErr
		}
		if try == 2 {
			return err
		}
	}
}

var errMoved = errors.New("the stream is not where it was left")

// settle reads the head after a publish that failed. stored: our message is
// there. Neither stored nor an error: it is not, and may be tried again.
func (r *runner) settle(ctx context.Context, m wire.Meta, cause error) (stored bool, err error) {
	switch stream.Classify(cause) {
	case stream.Full, stream.Permanent, stream.Canceled, stream.NoStream:
		return false, cause
	}
	if !r.cfg.JS.Conn().IsConnected() {
		return false, cause // the next session reads the head
	}
	head, err := r.st.Head(ctx, r.cfg.DB)
	if err != nil {
		return false, errors.Join(cause, err)
	}
	if err := r.fenced(head); err != nil {
		return false, err
	}
	switch d := head.Data; {
	case head.LastSeq == r.seq:
		return false, nil
	case d != nil && d.Seq == head.LastSeq && d.Seq > r.seq && d.Meta.MsgID() == m.MsgID() && d.Meta.Writer == m.Writer:
		r.seq = d.Seq
		r.bump(func(s *counters) { s.LostAcks++ })
		return true, nil
	case head.LastSeq > r.seq && (d == nil || d.Seq <= r.seq):
		// Messages that are nobody's: step over them, they are not data.
		r.cfg.Logger.Warn("foreign messages on our subjects", "seq", head.LastSeq)
		r.bump(func(s *counters) { s.Foreign++ })
		r.seq = head.LastSeq
		return false, nil
	}
	return false, fmt.Errorf("%w: its last sequence is %d, ours was %d: %w", errMoved, head.LastSeq, r.seq, cause)
}

// published records that f is stored whole.
func (r *runner) published(f capture.File, m wire.Meta, first uint64, took time.Duration) error {
	r.sent = f.TXID()
	r.mu.Lock()
	if m.Full {
		r.mu.base = base{seq: first, time: time.Now()}
	}
	r.mu.status.Files++
	r.mu.status.Bytes += uint64(f.Size)
	r.mu.status.Messages += uint64(m.Parts)
	r.mu.Unlock()
	r.noteError(nil)
	r.setAcked(f.Pos())
	r.cfg.Metrics.published(r.cfg.DB, f, m.Parts, took)
	return r.c.Acked(f.TXID())
}
