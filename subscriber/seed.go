package subscriber

import (
	"context"
	"errors"
	"fmt"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/feed"
	"github.com/ltxstream/ltxstream/replica"
)

// seek brings the feed to where the replica is; an empty replica needs a base.
func (r *runner) seek(ctx context.Context) error {
	pos := r.rep.Position()
	if pos.IsZero() {
		found, err := r.adopt(ctx)
		if err != nil {
			return err
		}
		pos = found
	}
	r.setState(StateSeeking)
	err := r.feed.Seek(ctx, pos.Pos, pos.Seq)
	switch {
	case err == nil:
		r.sought = true
		if !pos.IsZero() {
			r.setState(StateLive)
		}
		return nil
	case errors.Is(err, feed.ErrNoBase):
		r.setState(StateWaiting)
		return r.outside(ctx, err)
	}
	return r.broke(err)
}

// adopt finds the position of a replica that has content but no position, by
// the content's checksum in the stream.
func (r *runner) adopt(ctx context.Context) (replica.Position, error) {
	lost := r.rep.Lost()
	if lost == nil {
		return replica.Position{}, nil
	}
	r.cfg.Logger.Warn("replica has no position, looking for its checksum in the stream", "err", lost)
	pos, seq, err := r.feed.FindChecksum(ctx, lost.Content)
	if err != nil {
		return replica.Position{}, err
	}
	if pos.IsZero() {
		r.cfg.Logger.Warn("replica will be seeded anew", "path", r.cfg.Path)
		return replica.Position{}, nil
	}
	found := replica.Position{Pos: pos, Seq: seq}
	return found, r.rep.Adopt(ctx, found)
}

// reseed jumps over a break of the chain: by the stream's newest full file, in
// place, or by a base from outside. After a gap it must lie beyond the
// position; after a fork the position means nothing.
func (r *runner) reseed(ctx context.Context) error {
	pos := r.rep.Position().Pos
	r.setState(StateReseeding)
	r.sought = false
	file, err := r.newestFull(ctx, pos)
	if errors.Is(err, feed.ErrNoBase) {
		r.setState(StateBroken)
		return r.outside(ctx, err)
	}
	if err != nil {
		return fmt.Errorf("seed anew: %w", err)
	}
	r.cfg.Logger.Warn("seeding the replica anew in place", "from", pos, "to", file.Meta.PostPos())
	err = errors.Join(r.apply(ctx, file), file.Close())
	if err == nil {
		r.gap, r.fork, r.sought = false, false, true
		r.bump(func(c *counters) { c.Reseeds++ })
	}
	return err
}

// newestFull returns the newest full file of the stream that will do.
func (r *runner) newestFull(ctx context.Context, pos ltx.Pos) (*feed.File, error) {
	var after ltx.TXID
	if !r.fork {
		after = pos.TXID
	}
	if err := r.feed.SeekBase(ctx, after); err != nil {
		return nil, err
	}
	return r.feed.Next(ctx)
}

// outside asks the Bootstrapper for a base. Without one, cause says what is
// waited for.
func (r *runner) outside(ctx context.Context, cause error) error {
	if r.cfg.Bootstrapper == nil {
		return fmt.Errorf("wait for a full file from the publisher: %w", cause)
	}
	after := r.rep.Position().Pos
	if r.fork || r.strange {
		after = ltx.Pos{}
	}
	base, err := r.cfg.Bootstrapper.Base(ctx, r.cfg.DB, after)
	if err != nil {
		return fmt.Errorf("get a base: %w", errors.Join(err, cause))
	}
	r.cfg.Logger.Info("applying a base from outside the stream", "from", after, "full", base.Full)
	if err := r.applyBase(ctx, base); err != nil {
		return err
	}
	r.gap, r.fork, r.sought = false, false, false
	r.bump(func(c *counters) { c.Bases++ })
	return nil
}

// applyBase gives a base to the replica and closes it.
func (r *runner) applyBase(ctx context.Context, base *Base) error {
	err := r.rep.Apply(ctx, base.File, replica.ApplyInfo{Full: base.Full, NoChecksums: base.NoChecksums})
	if err = errors.Join(err, base.Close()); err == nil {
		r.progress, r.strange = true, false
		return nil
	}
	if !base.Full && ofAnotherHistory(err) {
		r.strange = true // the same changes would be offered again
	}
	if errors.Is(err, replica.ErrMoved) {
		err = errors.Join(err, r.closeReplica())
	}
	return fmt.Errorf("apply base: %w", err)
}

// ofAnotherHistory reports whether err says that changes do not belong to the
// replica: some begin before its position, so that only their end tells.
func ofAnotherHistory(err error) bool {
	_, place := errors.AsType[*replica.PosError](err)
	return place || errors.Is(err, replica.ErrDamaged) || errors.Is(err, replica.ErrDiverged)
}
