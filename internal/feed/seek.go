package feed

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/wire"
)

// Seek makes Next go on after pos. seq is the last stream sequence of the file
// that led to pos; 0, or one that the stream disproves, is looked up by TXID.
// A zero pos begins at the newest full file: ErrNoBase when there is none.
// [*GapError] and [*ForkError] say that the stream does not continue pos.
func (f *Feed) Seek(ctx context.Context, pos ltx.Pos, seq uint64) error {
	f.oldest = f.cfg.Oldest
	return f.seek(ctx, pos, seq)
}

func (f *Feed) seek(ctx context.Context, pos ltx.Pos, seq uint64) error {
	f.disconnect()
	f.asm.drop()
	f.pos, f.seq, f.epoch, f.posEpoch, f.sought = pos, seq, 0, 0, true
	f.noPosAt = time.Time{}
	if pos.IsZero() {
		f.seq, f.writer = 0, ""
	}
	if err := f.asking(ctx, f.locate); err != nil {
		return fmt.Errorf("seek %s: %w", pos, err)
	}
	return nil
}

// SeekBase makes Next begin at the newest full file, whatever the position was:
// ErrNoBase when there is none that ends after the TXID given.
func (f *Feed) SeekBase(ctx context.Context, after ltx.TXID) error {
	f.oldest = false
	if err := f.seek(ctx, ltx.Pos{}, 0); err != nil || after == 0 {
		return err
	}
	m, err := f.cfg.Stream.Get(ctx, f.seq+1)
	if err != nil {
		return fmt.Errorf("seek base: %w", err)
	}
	if m.Meta.Max <= after {
		return fmt.Errorf("%w: the newest one is TXID %s, too old for %s", ErrNoBase, m.Meta.Max, after)
	}
	return nil
}

// locate holds position and sequence against the stream as it is now, corrects
// the sequence, and learns the claim in force there. It is repeated on every
// connect: streams are trimmed, purged and recreated.
func (f *Feed) locate(ctx context.Context) error {
	f.stats.ahead.Store(false)
	f.held = span{}
	find := f.locatePos
	if f.pos.IsZero() {
		find = f.locateBase
	}
	if err := find(ctx); err != nil {
		return err
	}
	claim, err := f.claimAt(ctx, f.seq+1)
	if err != nil {
		return err
	}
	f.epoch = 0
	if claim != nil {
		f.epoch = claim.Epoch
	}
	f.located = true
	return nil
}

// locatePos trusts f.seq when the message there is the one that led to pos, or
// was trimmed; else it searches by TXID.
func (f *Feed) locatePos(ctx context.Context) error {
	state, err := f.cfg.Stream.State(ctx)
	if err != nil {
		return err
	}
	f.identify(state)
	if f.seq != 0 && f.seq <= state.Last {
		ok, err := f.anchored(ctx, state)
		if ok || err != nil {
			return err
		}
	}
	m, err := f.cfg.Stream.Find(ctx, f.cfg.DB, f.pos.TXID)
	if err != nil {
		return err
	}
	if m == nil {
		return f.behind(ctx, state)
	}
	broken := f.continues(m)
	if broken == nil {
		return nil
	}
	first, err := f.posByScan(ctx)
	if err != nil {
		return err
	}
	if first == 0 {
		return broken
	}
	f.seq = first - 1
	return nil
}

// anchored reports whether f.seq still names the end of what was dealt with.
// f.seq may also be a claim or a skipped message after the file at pos: then
// only the TXIDs can tell.
func (f *Feed) anchored(ctx context.Context, state stream.State) (bool, error) {
	m, err := f.cfg.Stream.Get(ctx, f.seq)
	if _, foreign := errors.AsType[*wire.HeaderError](err); foreign {
		return false, nil
	}
	switch {
	case errors.Is(err, stream.ErrNotFound):
		return f.seq < state.First, nil
	case err != nil:
		return false, err
	}
	if m.Meta.DB != f.cfg.DB || m.Meta.PostPos() != f.pos {
		return false, nil
	}
	f.posEpoch, f.writer = m.Meta.Epoch, m.Meta.Writer
	return true, nil
}

// continues starts at m, the first message at or after pos.
func (f *Feed) continues(m *stream.Message) error {
	switch {
	case m.Meta.PostPos() == f.pos:
		f.posEpoch, f.writer = m.Meta.Epoch, m.Meta.Writer
	case m.Meta.Min == f.pos.TXID:
		return &ForkError{DB: f.cfg.DB, Have: f.pos, Got: m.Meta.PostPos()}
	case m.Meta.Full:
	case m.Meta.Min > f.pos.TXID+1:
		return &GapError{DB: f.cfg.DB, Want: f.pos.TXID + 1, Got: m.Meta.Min}
	case m.Meta.Pre != f.pos.PostApplyChecksum:
		return &ForkError{DB: f.cfg.DB, Have: f.pos, Got: m.Meta.PrePos()}
	}
	f.seq = m.Seq - 1
	return nil
}

// behind handles a stream whose newest message is of a file older than pos. It may be
// somebody else's, so that pos is there all the same. Else, where the writer of our
// file wrote what is the newest, the stream lost its tail and the writer will send it
// again: wait. Another writer's history is not ours.
func (f *Feed) behind(ctx context.Context, state stream.State) error {
	head, err := f.Head(ctx)
	if err != nil {
		return err
	}
	if d := head.Data; d != nil && d.Meta.PostPos() == f.pos && d.Meta.Part == d.Meta.Parts {
		f.seq, f.posEpoch, f.writer = d.Seq, d.Meta.Epoch, d.Meta.Writer
		return nil
	}
	if time.Since(f.noPosAt) >= scanAgain {
		first, err := f.posByScan(ctx)
		if err != nil {
			return err
		}
		if first != 0 {
			f.seq = first - 1
			return nil
		}
		f.noPosAt = time.Now()
	}
	switch d := head.Data; {
	case d == nil:
		f.log.Warn("stream holds nothing to go by, waiting for the publisher", "txid", f.pos.TXID)
	case f.writer != "" && d.Meta.Writer != f.writer:
		return &ForkError{DB: f.cfg.DB, Have: f.pos, Got: d.Meta.PostPos()}
	default:
		f.log.Warn("stream is behind the replica, waiting for the publisher", "txid", f.pos.TXID, "head", d.Meta.Max)
	}
	f.seq = min(state.Last, head.LastSeq)
	f.stats.ahead.Store(true)
	return nil
}
