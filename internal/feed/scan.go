package feed

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/wire"
)

const (
	scanSize = 2000
	scanWait = 5 * time.Second

	scanAgain = 30 * time.Second // at the earliest, after a scan in vain
)

// baseByScan reads the headers of all data messages and returns the sequence
// of the first message of the newest complete full file: ErrNoBase when there
// is none. Only needed where hints are missing.
func (f *Feed) baseByScan(ctx context.Context) (uint64, error) {
	if time.Since(f.noBaseAt) < scanAgain {
		return 0, ErrNoBase
	}
	f.log.Info("looking for a full file in the whole stream")
	var s baseScan
	if err := f.scan(ctx, s.add); err != nil {
		return 0, err
	}
	for _, b := range slices.Backward(s.found) {
		if first, err := f.begin(ctx, b.first, b.epoch); err != nil || first != 0 {
			return first, err
		}
	}
	f.noBaseAt = time.Now()
	return 0, ErrNoBase
}

// posByScan is the slow proof before a gap, a fork or a stream that is behind is
// declared. It returns the first sequence of the file at pos or, failing that, of
// its successor; 0 when the stream has neither.
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
	err = f.asking(ctx, func(ctx context.Context) error {
		return f.scan(ctx, func(m wire.Meta, at uint64) {
			if m.Post == sum {
				pos, seq = m.PostPos(), at
			}
		})
	})
	return pos, seq, err
}

// scan reads the headers of all valid data messages that the database has when it
// begins, in order. Its consumer has a name of its own: one that was left by a
// scan before would go on where that one ended.
func (f *Feed) scan(ctx context.Context, see func(wire.Meta, uint64)) error {
	name := f.cfg.Durable + "-scan-" + rand.Text()[:8]
	cons, err := f.cfg.JS.CreateConsumer(ctx, f.cfg.Stream.Name(), jetstream.ConsumerConfig{
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
	defer f.deleteScan(ctx, name)
	s := scanned{total: cons.CachedInfo().NumPending}
	for s.total > s.read {
		before := s.read
		err := f.scanBatch(ctx, cons, &s, see)
		if err = errors.Join(err, ctx.Err()); err != nil {
			return fmt.Errorf("scan headers: %w", err)
		}
		if s.read == before {
			return fmt.Errorf("scan headers: %w", jetstream.ErrNoMessages)
		}
	}
	return nil
}

// deleteScan removes the consumer of a scan. Where that is not permitted, it goes
// by itself after its threshold.
func (f *Feed) deleteScan(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = f.cfg.JS.DeleteConsumer(ctx, f.cfg.Stream.Name(), name)
}

// errLost says that a consumer without acknowledgements lost a delivery: with the
// connection.
var errLost = errors.New("deliveries were lost")

// scanned counts the messages of a scan.
type scanned struct {
	total uint64 // that there were when it began; less when some were deleted since
	read  uint64
}

func (f *Feed) scanBatch(ctx context.Context, cons jetstream.Consumer, s *scanned, see func(wire.Meta, uint64)) error {
	ctx, cancel := context.WithTimeout(ctx, scanWait)
	defer cancel()
	batch, err := cons.Fetch(int(min(s.total-s.read, f.pull)), jetstream.FetchContext(ctx))
	if err != nil {
		return err
	}
	var lost error
	for msg := range batch.Messages() { // to its end: it has a goroutine
		md, err := msg.Metadata()
		if s.read++; err == nil && md.Sequence.Consumer != s.read {
			err = fmt.Errorf("%w: number %d came in place of %d", errLost, md.Sequence.Consumer, s.read)
		}
		if lost = cmp.Or(lost, err); lost != nil {
			continue
		}
		if md.NumPending == 0 {
			s.total = s.read
		}
		if m, err := wire.ParseMeta(msg.Headers()); err == nil && m.DB == f.cfg.DB {
			see(m, md.Sequence.Stream)
		}
	}
	return cmp.Or(lost, batch.Error())
}

// baseScan remembers where complete full files began.
type baseScan struct {
	key   wire.Meta
	first uint64 // of the full file whose parts are passing by
	next  int
	found []struct{ first, epoch uint64 }
}

func (s *baseScan) add(m wire.Meta, seq uint64) {
	switch {
	case !m.Full:
		return
	case m.Part == 1:
		s.key, s.first, s.next = stream.FileOf(m), seq, 1
	case stream.FileOf(m) != s.key || m.Part != s.next:
		return
	}
	if s.next++; s.next > m.Parts {
		s.found = append(s.found, struct{ first, epoch uint64 }{s.first, m.Epoch})
	}
}
