package stream

import (
	"context"
	"errors"

	"github.com/ltxstream/ltxstream/wire"
)

const (
	maxPassed  = 1000 // messages at the tail that are looked through for one that readers take
	maxBetween = 100  // messages of others that may stand between two parts of a file
)

// Why readers ignore a message that is whole.
var (
	errStale = errors.New("written under an older claim")
	errPart  = errors.New("the part before is not there")
)

// PassOver replaces the newest data of h by the newest that readers take: they ignore
// what was written under an older claim, and what is no file. It becomes nil where
// there is none, or, with Far, where it is too far away. why is the reason for the
// newest one; nil: it was not replaced. The claim of h must be the one in force
// ([Stream.Enforce]).
func (s *Stream) PassOver(ctx context.Context, db wire.DB, h *Head) (why, err error) {
	for n := 0; h.Data != nil; n++ {
		ignored, err := s.ignored(ctx, db, *h)
		if err != nil || ignored == nil {
			return why, err
		}
		if n == 0 {
			why = ignored
		}
		h.Data, err = s.DataBefore(ctx, db, h.Data.Seq)
		if n == maxPassed || errors.Is(err, errFar) {
			h.Data, h.Far, err = nil, true, nil
		}
		if err != nil {
			return why, err
		}
	}
	return why, nil
}

// ignored returns why readers ignore the newest data of h, nil when they do not.
func (s *Stream) ignored(ctx context.Context, db wire.DB, h Head) (why, err error) {
	claim := h.Claim
	if claim != nil && h.ClaimSeq > h.Data.Seq {
		if claim, _, err = s.ClaimInForce(ctx, db, h.Data.Seq); err != nil {
			return nil, err
		}
	}
	if claim != nil && h.Data.Meta.Epoch < claim.Epoch {
		return errStale, nil
	}
	if why := h.Data.Check(); why != nil || h.Data.Meta.Part == 1 {
		return why, nil
	}
	m := h.Data
	for n := range maxBetween {
		m, err = s.DataBefore(ctx, db, m.Seq)
		switch {
		case errors.Is(err, errFar):
			return errPart, nil
		case err != nil:
			return nil, err
		case m == nil && n == 0: // trimmed
			return nil, nil
		case m == nil:
			return errPart, nil
		case m.Meta.Part >= h.Data.Meta.Part-1 && FileOf(m.Meta) == FileOf(h.Data.Meta):
			return nil, nil
		}
	}
	return errPart, nil
}
