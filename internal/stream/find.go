package stream

import (
	"context"
	"fmt"
	"math/bits"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/wire"
)

// SeqOf returns the sequence of the first message of the file that holds
// txid: ErrNotFound when the stream has none.
func (s *Stream) SeqOf(ctx context.Context, db wire.DB, txid ltx.TXID) (uint64, error) {
	m, err := s.Find(ctx, db, txid)
	if err != nil {
		return 0, err
	}
	if m == nil || m.Meta.Min != txid {
		return 0, fmt.Errorf("find TXID %s of %s: %w", txid, db, ErrNotFound)
	}
	return m.Seq, nil
}

// Find returns the first message whose file holds txid or, where the stream
// has no such file, a later one; nil when there is none. It reads the headers
// of O(log n) messages, and of two or three where TXIDs grow evenly.
func (s *Stream) Find(ctx context.Context, db wire.DB, txid ltx.TXID) (*Message, error) {
	f := finder{s: s, subject: db.DataSubject(), txid: txid}
	m, err := f.find(ctx)
	if err != nil {
		return nil, fmt.Errorf("find TXID %s of %s: %w", txid, db, err)
	}
	return m, nil
}

// FirstData returns the oldest valid data message of db, nil when there is
// none.
func (s *Stream) FirstData(ctx context.Context, db wire.DB) (*Message, error) {
	f := finder{s: s, subject: db.DataSubject()}
	m, err := f.probe(ctx, 1)
	if err != nil {
		return nil, fmt.Errorf("read first message of %s: %w", db, err)
	}
	return m, nil
}

// finder searches the sequences in (low.Seq, high.Seq): everything up to low
// is before the TXID, and the first message at or after end is high.
type finder struct {
	s         *Stream
	subject   string
	txid      ltx.TXID
	low, high *Message
	end       uint64
}

func (f *finder) find(ctx context.Context) (*Message, error) {
	var err error
	if f.low, err = f.probe(ctx, 1); err != nil || f.low == nil {
		return nil, err
	}
	if f.low.Meta.Min >= f.txid {
		return f.low, nil
	}
	last, err := f.s.lastValidData(ctx, f.subject)
	if err != nil || last == nil || last.Meta.Min < f.txid {
		return nil, err
	}
	f.high, f.end = last, last.Seq
	for turn := 0; f.low.Seq+1 < f.end; turn++ {
		m, err := f.probe(ctx, f.guess(turn))
		if err != nil {
			return nil, err
		}
		if m.Meta.Min == f.txid && m.Meta.Part == 1 {
			return m, nil
		}
	}
	return f.high, nil
}

// guess returns a sequence in (low.Seq, end), by proportion and, every other
// time, the middle: so uneven streams cost no more than halving does.
func (f *finder) guess(turn int) uint64 {
	low, span := f.low.Seq, f.end-f.low.Seq
	if turn%2 == 1 || f.high.Meta.Min <= f.low.Meta.Min {
		return low + max(span/2, 1)
	}
	step := muldiv(f.high.Seq-low, uint64(f.txid-f.low.Meta.Min), uint64(f.high.Meta.Min-f.low.Meta.Min))
	return low + min(max(step, 1), span-1)
}

// muldiv returns a*b/c for b ≤ c, without overflow.
func muldiv(a, b, c uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	q, _ := bits.Div64(hi, lo, c)
	return q
}

// probe reads the first valid data message at or after seq and moves the
// bound that it proves; messages that are not ours are stepped over.
func (f *finder) probe(ctx context.Context, seq uint64) (*Message, error) {
	for at := seq; ; {
		r, err := f.s.next(ctx, f.subject, at)
		if err != nil {
			return nil, err
		}
		if r == nil {
			if f.high != nil { // trimmed or recreated under our feet
				return nil, ErrNotFound
			}
			return nil, nil
		}
		m, err := r.message()
		if err != nil {
			at = r.Seq + 1
			continue
		}
		f.narrow(seq, m)
		return m, nil
	}
}

func (f *finder) narrow(seq uint64, m *Message) {
	switch {
	case f.high == nil:
	case m.Seq >= f.high.Seq:
		f.end = seq
	case m.Meta.Min < f.txid:
		f.low = m
	default:
		f.high, f.end = m, seq
	}
}

func (s *Stream) lastValidData(ctx context.Context, subject string) (m *Message, err error) {
	r, err := s.last(ctx, subject)
	if err != nil || r == nil {
		return nil, err
	}
	var foreign int
	r, err = s.lastValid(ctx, subject, r, &foreign, func(r *rawMessage) (err error) {
		m, err = r.message()
		return err
	})
	if err != nil || r == nil {
		return nil, err
	}
	return m, nil
}
