package stream

import (
	"context"
	"errors"
	"fmt"

	"github.com/ltxstream/ltxstream/wire"
)

// Head is the newest of one database in the stream.
type Head struct {
	// LastSeq is the last sequence on the database's subjects, of whatever
	// was stored there: the value for the next publish to expect. 0: none.
	LastSeq uint64
	Data    *Message    // newest valid data message; nil: none
	Claim   *wire.Claim // newest valid claim; nil: none
	// ClaimSeq is the sequence of Claim, 0 without one.
	ClaimSeq uint64
	// Foreign counts the messages at the tail that were stepped over because
	// they are not ours or their headers are damaged.
	Foreign int
	// Far: what readers take of the data is too far away (PassOver).
	Far bool
}

const (
	headTries  = 8    // reads repeated because somebody published meanwhile
	maxForeign = 1000 // messages that are not ours, stepped over at one tail
)

// Head reads the newest messages of db from the stream's leader. Messages
// that are not ours count for LastSeq and are otherwise stepped over.
func (s *Stream) Head(ctx context.Context, db wire.DB) (Head, error) {
	for range headTries {
		h, stable, err := s.readHead(ctx, db)
		if err != nil {
			return Head{}, fmt.Errorf("read head of %s: %w", db, err)
		}
		if stable {
			return h, nil
		}
	}
	return Head{}, fmt.Errorf("read head of %s: somebody else keeps publishing", db)
}

// readHead reads LastSeq first; stable says that nothing newer showed up in
// the reads that followed.
func (s *Stream) readHead(ctx context.Context, db wire.DB) (h Head, stable bool, err error) {
	last, err := s.last(ctx, db.Filter())
	if err != nil || last == nil {
		return Head{}, err == nil, err
	}
	h.LastSeq = last.Seq
	data, err := s.lastValid(ctx, db.DataSubject(), last, &h.Foreign, func(r *rawMessage) (err error) {
		h.Data, err = r.message()
		return err
	})
	if err != nil {
		return Head{}, false, err
	}
	claim, err := s.lastValid(ctx, db.EpochSubject(), last, &h.Foreign, func(r *rawMessage) (err error) {
		h.Claim, err = r.claim()
		return err
	})
	if err != nil {
		return Head{}, false, err
	}
	if claim != nil {
		h.ClaimSeq = claim.Seq
	} else {
		h.Claim = nil
	}
	if data == nil {
		h.Data = nil
	}
	return h, max(seqOf(data), h.ClaimSeq) <= h.LastSeq, nil
}

// lastValid walks back from the last message on subject to one that parse
// accepts; nil when there is none.
func (s *Stream) lastValid(ctx context.Context, subject string, last *rawMessage, foreign *int, parse func(*rawMessage) error) (*rawMessage, error) {
	r := last
	if r.Subject != subject {
		var err error
		if r, err = s.last(ctx, subject); err != nil {
			return nil, err
		}
	}
	for range maxForeign {
		if r == nil || parse(r) == nil {
			return r, nil
		}
		*foreign++
		var err error
		if r, err = s.prev(ctx, subject, r.Seq); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("the last %d messages on %s are not ours", maxForeign, subject)
}

// DataBefore returns the newest valid data message of db stored before seq, nil when
// there is none.
func (s *Stream) DataBefore(ctx context.Context, db wire.DB, seq uint64) (*Message, error) {
	for range maxForeign {
		r, err := s.prev(ctx, db.DataSubject(), seq)
		if err != nil {
			return nil, fmt.Errorf("read data of %s before %d: %w", db, seq, err)
		}
		if r == nil {
			return nil, nil
		}
		if m, err := r.message(); err == nil {
			return m, nil
		}
		seq = r.Seq
	}
	return nil, fmt.Errorf("read data of %s: %w", db, errFar)
}

// errFar says that nothing of ours is among so many messages.
var errFar = fmt.Errorf("the last %d messages are not ours", maxForeign)

// LastSeq returns the last sequence on the subjects of db, 0 when there is
// none.
func (s *Stream) LastSeq(ctx context.Context, db wire.DB) (uint64, error) {
	r, err := s.last(ctx, db.Filter())
	if err != nil {
		return 0, fmt.Errorf("read last sequence of %s: %w", db, err)
	}
	return seqOf(r), nil
}

// ClaimBefore returns the newest valid claim on db stored before seq, nil when
// there is none.
func (s *Stream) ClaimBefore(ctx context.Context, db wire.DB, seq uint64) (*wire.Claim, error) {
	c, _, err := s.claimBefore(ctx, db, seq)
	return c, err
}

func (s *Stream) claimBefore(ctx context.Context, db wire.DB, seq uint64) (*wire.Claim, uint64, error) {
	for range maxForeign {
		r, err := s.prev(ctx, db.EpochSubject(), seq)
		if err != nil {
			return nil, 0, fmt.Errorf("read claim of %s before %d: %w", db, seq, err)
		}
		if r == nil {
			return nil, 0, nil
		}
		if c, err := r.claim(); err == nil {
			return c, r.Seq, nil
		}
		seq = r.Seq
	}
	return nil, 0, fmt.Errorf("read claim of %s: the last %d are not ours", db, maxForeign)
}

// ClaimInForce returns the claim that holds for what was stored at seq, and its
// sequence; nil and 0 when there is none. It is the newest one before, but for those
// that an older one outranks: somebody sent them again, and nobody obeys them.
func (s *Stream) ClaimInForce(ctx context.Context, db wire.DB, seq uint64) (*wire.Claim, uint64, error) {
	claim, at, err := s.claimBefore(ctx, db, seq)
	if err != nil || claim == nil {
		return nil, 0, err
	}
	return s.inForce(ctx, db, claim, at)
}

// Enforce replaces the claim of h by the one in force.
func (s *Stream) Enforce(ctx context.Context, db wire.DB, h *Head) (err error) {
	if h.Claim != nil {
		h.Claim, h.ClaimSeq, err = s.inForce(ctx, db, h.Claim, h.ClaimSeq)
	}
	return err
}

// inForce returns claim, which is at that sequence, or the newest one before that no
// older one outranks.
func (s *Stream) inForce(ctx context.Context, db wire.DB, claim *wire.Claim, at uint64) (*wire.Claim, uint64, error) {
	for range maxForeign {
		before, seq, err := s.claimBefore(ctx, db, at)
		if err != nil {
			return nil, 0, err
		}
		if before == nil || before.Epoch < claim.Epoch {
			return claim, at, nil
		}
		claim, at = before, seq
	}
	return nil, 0, fmt.Errorf("read claim of %s: the last %d were sent again", db, maxForeign)
}

// last returns the last message on subject, nil when there is none.
func (s *Stream) last(ctx context.Context, subject string) (*rawMessage, error) {
	return orNone(s.raw(ctx, getRequest{Last: subject}))
}

// next returns the first message on subject at or after seq, nil when there
// is none.
func (s *Stream) next(ctx context.Context, subject string, seq uint64) (*rawMessage, error) {
	return orNone(s.raw(ctx, getRequest{Next: subject, Seq: max(seq, 1)}))
}

// prev returns the last message on subject before the sequence, nil when
// there is none: it steps back in growing strides, then halves.
func (s *Stream) prev(ctx context.Context, subject string, before uint64) (*rawMessage, error) {
	low, high := before, before // nothing in [high, before)
	var found *rawMessage
	for stride := uint64(1); found == nil; stride *= 2 {
		if low <= 1 {
			return nil, nil
		}
		high, low = low, low-min(stride, low-1)
		r, err := s.next(ctx, subject, low)
		if err != nil {
			return nil, err
		}
		if r != nil && r.Seq < before {
			found = r
		}
	}
	for found.Seq+1 < high {
		mid := found.Seq + 1 + (high-found.Seq-1)/2
		r, err := s.next(ctx, subject, mid)
		if err != nil {
			return nil, err
		}
		if r != nil && r.Seq < before {
			found = r
		} else {
			high = mid
		}
	}
	return found, nil
}

func orNone(r *rawMessage, err error) (*rawMessage, error) {
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	return r, err
}

func seqOf(r *rawMessage) uint64 {
	if r == nil {
		return 0
	}
	return r.Seq
}
