package feed

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Settings of the consumer and its pulls. The byte limit of a pull must exceed
// the largest stored message, or it stalls without an error.
const (
	inactiveThreshold = 72 * time.Hour
	maxAckPending     = 65536
	ackWait           = 10 * time.Minute // redelivery is not relied on: we reset
	pullMessages      = 1000
	pullExpiry        = 5 * time.Second
	pullHeartbeat     = time.Second

	ackEvery    = 250 * time.Millisecond
	ackMessages = 4096

	idleFirst = 3 * time.Second // the watchdog's first look, doubled up to
	idleMost  = 30 * time.Second
)

// errResync says that the consumer must be reset before going on.
var errResync = errors.New("resync")

// connection is one run of the consumer from a reset on.
type connection struct {
	it       jetstream.MessagesContext
	received uint64 // consumer sequence of the last delivery
	seen     uint64 // stream sequence of the last delivery
	ahead    uint64 // messages that the stream held beyond it
	lags     bool   // it stays behind the end of the stream (see stayBehind)

	idle    time.Duration // of waiting until the watchdog looks again
	waited  time.Duration // of it, in however many calls
	unacked int
	ackable jetstream.Msg // newest message, not acknowledged
	lastAck time.Time
}

// delivery is one message with its places in consumer and stream.
type delivery struct {
	msg jetstream.Msg
	seq uint64
	at  time.Time
}

// connect resets the consumer to f.seq+1 and starts to pull. It compares the
// position with the stream first: a start sequence out of range is silent.
func (f *Feed) connect(ctx context.Context) error {
	if f.con != nil {
		return nil
	}
	f.drainStatus()
	return f.asking(ctx, f.consume)
}

func (f *Feed) consume(ctx context.Context) error {
	if !f.located {
		if err := f.locate(ctx); err != nil {
			return err
		}
	}
	cons, err := f.cfg.JS.CreateOrUpdateConsumer(ctx, f.cfg.Stream.Name(), f.consumerConfig())
	if err != nil {
		return fmt.Errorf("create consumer %s: %w", f.cfg.Durable, f.explain("CONSUMER.CREATE."+f.cfg.Stream.Name(), err))
	}
	if _, err := f.cfg.JS.ResetConsumerToSequence(ctx, f.cfg.Stream.Name(), f.cfg.Durable, f.seq+1); err != nil {
		return fmt.Errorf("reset consumer %s to %d: %w", f.cfg.Durable, f.seq+1, f.explain("CONSUMER.RESET."+f.cfg.Stream.Name(), err))
	}
	amount := jetstream.PullMessagesOpt(jetstream.PullMaxMessagesWithBytesLimit(pullMessages, max(f.cfg.Buffer, 2*int(f.nc.MaxPayload()))))
	if f.lag {
		amount = jetstream.PullMaxMessages(lagPull)
	}
	it, err := cons.Messages(
		amount,
		jetstream.PullExpiry(pullExpiry),
		jetstream.PullHeartbeat(pullHeartbeat),
		jetstream.WithMessagesErrOnMissingHeartbeat(true),
	)
	if err != nil {
		return fmt.Errorf("consume: %w", err)
	}
	f.asm.drop() // the parts come again
	f.con = &connection{it: it, seen: f.seq, lags: f.lag, idle: f.idle, lastAck: time.Now()}
	return nil
}

// explain says what an error of the consumer API means.
func (f *Feed) explain(call string, err error) error { return f.cfg.Stream.Explain(call, err) }

func (f *Feed) consumerConfig() jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable:           f.cfg.Durable,
		FilterSubject:     f.cfg.DB.Filter(),
		DeliverPolicy:     jetstream.DeliverAllPolicy,
		AckPolicy:         jetstream.AckAllPolicy,
		AckWait:           ackWait,
		MaxAckPending:     maxAckPending,
		InactiveThreshold: inactiveThreshold,
	}
}

// disconnect stops pulling; the next connect compares and resets anew.
func (f *Feed) disconnect() {
	if f.con != nil {
		f.con.ack(true)
		f.con.it.Stop()
		f.con = nil
	}
	f.located = false
}

// receive waits for the next delivery. errResync: the consumer must be reset.
func (f *Feed) receive(ctx context.Context) (delivery, error) {
	c := f.con
	c.ack(false)
	f.dealtWith()
	for {
		began := time.Now()
		wait, cancel := context.WithTimeout(ctx, max(c.idle-c.waited, time.Millisecond))
		msg, err := c.it.Next(jetstream.NextContext(wait))
		cancel()
		c.waited += time.Since(began)
		switch {
		case err == nil:
			c.idle, c.waited = f.idle, 0
			return f.order(msg)
		case ctx.Err() != nil:
			return delivery{}, context.Cause(ctx)
		case !errors.Is(err, context.DeadlineExceeded):
			return delivery{}, fmt.Errorf("%w: %w", errResync, err)
		}
		if err := f.lookAround(ctx); err != nil {
			return delivery{}, err
		}
	}
}

// dealtWith counts the delivery before as no longer pending, unless a file is
// half joined.
func (f *Feed) dealtWith() {
	n := f.stats.pending.Load()
	if n == 0 || f.asm.busy() || f.in != nil || f.con.received == 0 {
		return
	}
	f.stats.pending.Store(n - 1)
	if n == 1 {
		f.stats.since.Store(0)
	}
}

// order holds a delivery against the one before. Consumer sequences count
// from 1 after a reset: a hole means that a delivery was lost on its way.
func (f *Feed) order(msg jetstream.Msg) (delivery, error) {
	md, err := msg.Metadata()
	if err != nil {
		return delivery{}, fmt.Errorf("%w: %w", errResync, err)
	}
	c := f.con
	if f.reconnected() || md.Sequence.Consumer != c.received+1 || md.Sequence.Stream <= c.seen {
		return delivery{}, errResync
	}
	c.received, c.seen, c.ahead = md.Sequence.Consumer, md.Sequence.Stream, md.NumPending
	c.unacked++
	c.ackable = msg // dealt with when the next one is asked for
	f.stats.lastSeq.Store(c.seen)
	f.stats.pending.Store(md.NumPending + 1)
	f.stats.since.CompareAndSwap(0, md.Timestamp.UnixNano())
	return delivery{msg: msg, seq: md.Sequence.Stream, at: md.Timestamp}, nil
}

// lookAround is the watchdog: nothing came for a while, so compare what the
// stream has with what was received.
func (f *Feed) lookAround(ctx context.Context) error {
	c := f.con
	c.ack(true)
	if f.reconnected() {
		return errResync
	}
	c.idle, c.waited = min(2*c.idle, idleMost), 0
	return f.asking(ctx, f.compare)
}

// compare returns errResync when the stream has what was not received.
func (f *Feed) compare(ctx context.Context) error {
	c := f.con
	state, err := f.cfg.Stream.State(ctx)
	switch {
	case err != nil:
		return err
	case state.Last < f.seq:
		return errResync // recreated, or its tail was lost
	case state.Last == c.seen:
		return nil
	}
	last, err := f.cfg.Stream.LastSeq(ctx, f.cfg.DB)
	if err != nil {
		return err
	}
	if last > c.seen {
		f.log.Warn("consumer stalled", "last", last, "seen", c.seen)
		return errResync
	}
	return nil
}

// reconnected reports whether the connection was lost and came back.
func (f *Feed) reconnected() bool {
	select {
	case <-f.status:
		return true
	default:
		return false
	}
}

func (f *Feed) drainStatus() {
	for f.reconnected() {
	}
}

// ack acknowledges what was dealt with, without waiting for an answer: now
// and then, or at once. It is not what progress rests on.
func (c *connection) ack(now bool) {
	if c.ackable == nil || !now && c.unacked < ackMessages && time.Since(c.lastAck) < ackEvery {
		return
	}
	_ = c.ackable.Ack() // lost: the next one covers it
	c.ackable, c.unacked, c.lastAck = nil, 0, time.Now()
}
