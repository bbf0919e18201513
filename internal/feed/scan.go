package feed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/wire"
)

const (
	scanSize = 2000
	scanWait = 5 * time.Second

	scanAgain = 30 * time.Second // at the earliest, after a scan without a find
)

// baseByScan reads the headers of all data messages and returns the sequence
// of the first message of the newest complete full file: ErrNoBase when there
// is none. Only needed where hints are missing.
func (f *Feed) baseByScan(ctx context.Context) (uint64, error) {
	if time.Since(f.noBaseAt) < scanAgain {
		return 0, ErrNoBase
	}
	f.log.Info("looking for a full file in the whole stream")
	s := baseScan{bad: f.badBases}
	if err := f.scan(ctx, s.add); err != nil {
		return 0, err
	}
	if s.found == 0 {
		f.noBaseAt = time.Now()
		return 0, ErrNoBase
	}
	return s.found, nil
}

// posByScan is the slow proof before a gap or a fork is declared: messages
// that somebody else wrote may have led the search by TXID astray. It returns
// the first sequence of the file at pos or, failing that, of its successor; 0
// when the stream has neither.
func (f *Feed) posByScan(ctx context.Context) (uint64, error) {
	var at, after uint64
	err := f.scan(ctx, func(m wire.Meta, seq uint64) {
		switch {
		case m.Part != 1:
		case at == 0 && m.PostPos() == f.pos:
			at = seq
		case after == 0 && m.PrePos() == f.pos:
			after = seq
		}
	})
	return cmp.Or(at, after), err
}

// FindChecksum looks through the whole stream for a file that ended with sum,
// and returns its position and the sequence of its last message; a zero
// position when there is none.
func (f *Feed) FindChecksum(ctx context.Context, sum ltx.Checksum) (pos ltx.Pos, seq uint64, err error) {
	err = f.scan(ctx, func(m wire.Meta, at uint64) {
		if m.Post == sum {
			pos, seq = m.PostPos(), at
		}
	})
	return pos, seq, err
}

// scan reads the headers of all valid data messages of the database, in order.
func (f *Feed) scan(ctx context.Context, see func(wire.Meta, uint64)) error {
	name := f.cfg.Durable + "-scan"
	cons, err := f.cfg.JS.CreateOrUpdateConsumer(ctx, f.cfg.Stream.Name(), jetstream.ConsumerConfig{
		Name:              name,
		FilterSubject:     f.cfg.DB.DataSubject(),
		DeliverPolicy:     jetstream.DeliverAllPolicy,
		AckPolicy:         jetstream.AckNonePolicy,
		HeadersOnly:       true,
		MemoryStorage:     true,
		InactiveThreshold: 30 * time.Second,
	})
	if err != nil {
		return fmt.Errorf("create consumer %s: %w", name, f.explain("CONSUMER.CREATE."+f.cfg.Stream.Name(), err))
	}
	// Where deleting is not permitted, it goes by itself after its threshold.
	defer f.cfg.JS.DeleteConsumer(context.WithoutCancel(ctx), f.cfg.Stream.Name(), name)
	for pending := cons.CachedInfo().NumPending; pending > 0; {
		left, err := f.scanBatch(cons, pending, see)
		if err = errors.Join(err, ctx.Err()); err != nil {
			return fmt.Errorf("scan headers: %w", err)
		}
		if left >= pending {
			return fmt.Errorf("scan headers: %w", jetstream.ErrNoMessages)
		}
		pending = left
	}
	return nil
}

// scanBatch reads some headers and returns how many messages are left.
func (f *Feed) scanBatch(cons jetstream.Consumer, pending uint64, see func(wire.Meta, uint64)) (left uint64, err error) {
	batch, err := cons.Fetch(int(min(pending, scanSize)), jetstream.FetchMaxWait(scanWait))
	if err != nil {
		return pending, err
	}
	left = pending
	for msg := range batch.Messages() {
		md, err := msg.Metadata()
		if err != nil {
			continue
		}
		left = md.NumPending
		if m, err := wire.ParseMeta(msg.Headers()); err == nil && m.DB == f.cfg.DB {
			see(m, md.Sequence.Stream)
		}
	}
	return left, batch.Error()
}

// baseScan remembers where the newest complete full file began.
type baseScan struct {
	bad   map[uint64]bool
	key   wire.Meta
	first uint64 // of the full file whose parts are passing by
	next  int
	found uint64
}

func (s *baseScan) add(m wire.Meta, seq uint64) {
	switch {
	case !m.Full:
		return
	case m.Part == 1:
		s.key, s.first, s.next = keyOf(m), seq, 1
	case keyOf(m) != s.key || m.Part != s.next:
		return
	}
	if s.next++; s.next > m.Parts && !s.bad[s.first] {
		s.found = s.first
	}
}
