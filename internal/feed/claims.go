package feed

import (
	"context"

	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/wire"
)

// span is a claim, and where it is in force: behind its sequence, up to another. The
// zero span is nowhere.
type span struct {
	claim  *wire.Claim // nil: there was none
	at, to uint64
}

func (s span) holds(seq uint64) bool { return s.at < seq && seq <= s.to }

// claimAt returns the claim that holds for what was stored at seq, nil when there is
// none.
func (f *Feed) claimAt(ctx context.Context, seq uint64) (*wire.Claim, error) {
	if f.held.holds(seq) {
		return f.held.claim, nil
	}
	claim, at, err := f.cfg.Stream.ClaimInForce(ctx, f.cfg.DB, seq)
	if err == nil {
		f.held = span{claim, at, seq}
	}
	return claim, err
}

// Head reads the newest of the database from the stream's leader: of data, the newest
// that is not passed over.
func (f *Feed) Head(ctx context.Context) (stream.Head, error) {
	h, err := f.cfg.Stream.Head(ctx, f.cfg.DB)
	if err == nil {
		err = f.cfg.Stream.Enforce(ctx, f.cfg.DB, &h)
	}
	if err != nil {
		return h, err
	}
	f.held = span{h.Claim, h.ClaimSeq, h.LastSeq + 1}
	_, err = f.cfg.Stream.PassOver(ctx, f.cfg.DB, &h)
	return h, err
}
