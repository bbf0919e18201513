package feed

import (
	"context"
	"errors"
	"fmt"

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
	find := f.locatePos
	if f.pos.IsZero() {
		find = f.locateBase
	}
	if err := find(ctx); err != nil {
		return err
	}
	claim, _, err := f.cfg.Stream.ClaimInForce(ctx, f.cfg.DB, f.seq+1)
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
	broken := errBehind
	if m != nil {
		broken = f.continues(m)
	}
	if broken == nil {
		return nil
	}
	// Messages that somebody else wrote may have led the search by TXID astray.
	first, err := f.posByScan(ctx)
	if err != nil {
		return err
	}
	switch {
	case first != 0:
		f.seq = first - 1
		return nil
	case m == nil:
		return f.behind(ctx, state)
	}
	return broken
}

// errBehind says that the stream's newest file is older than the position.
var errBehind = errors.New("stream is behind")

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

// behind handles a stream whose newest file is older than pos. Where the
// writer of our file wrote it, the stream lost its tail and the writer will
// send it again: wait. Another writer's history is not ours.
func (f *Feed) behind(ctx context.Context, state stream.State) error {
	head, err := f.head(ctx)
	if err != nil {
		return err
	}
	if head.Data == nil {
		f.log.Warn("stream is empty, waiting for the publisher", "txid", f.pos.TXID)
	} else if w := head.Data.Meta.Writer; f.writer != "" && w != f.writer {
		return &ForkError{DB: f.cfg.DB, Have: f.pos, Got: head.Data.Meta.PostPos()}
	} else {
		f.log.Warn("stream is behind the replica, waiting for the publisher", "txid", f.pos.TXID, "head", head.Data.Meta.Max)
	}
	f.seq = min(state.Last, head.LastSeq)
	f.stats.ahead.Store(true)
	return nil
}

// head reads the head of the stream, with the newest data that readers take.
func (f *Feed) head(ctx context.Context) (stream.Head, error) {
	h, err := f.cfg.Stream.Head(ctx, f.cfg.DB)
	if err == nil && h.Claim != nil {
		h.Claim, h.ClaimSeq, err = f.cfg.Stream.ClaimInForce(ctx, f.cfg.DB, h.ClaimSeq+1)
	}
	if err == nil {
		_, err = f.cfg.Stream.PassOver(ctx, f.cfg.DB, &h)
	}
	return h, err
}

// locateBase starts before the newest complete full file: the tail itself, the
// one its hint names, or the last one found by reading all headers.
func (f *Feed) locateBase(ctx context.Context) error {
	if err := f.dropBadBases(ctx); err != nil {
		return err
	}
	head, err := f.head(ctx)
	if err != nil {
		return err
	}
	if head.Data == nil {
		return ErrNoBase
	}
	first, err := f.oldestBase(ctx)
	if err == nil && first == 0 {
		first, err = f.baseByHint(ctx, head.Data)
	}
	if err == nil && first == 0 {
		first, err = f.baseByScan(ctx)
	}
	if err != nil {
		return err
	}
	f.seq = first - 1
	return nil
}

// dropBadBases forgets those of a stream that is gone.
func (f *Feed) dropBadBases(ctx context.Context) error {
	state, err := f.cfg.Stream.State(ctx)
	if err == nil && !state.Created.Equal(f.created) {
		f.created = state.Created
		clear(f.badBases)
	}
	return err
}

// oldestBase returns the sequence of the stream's first file, if it is wanted
// and a full one; else 0.
func (f *Feed) oldestBase(ctx context.Context) (uint64, error) {
	if !f.oldest {
		return 0, nil
	}
	m, err := f.cfg.Stream.FirstData(ctx, f.cfg.DB)
	if err != nil || m == nil || !m.Meta.Full || m.Meta.Part != 1 {
		return 0, err
	}
	return f.begin(ctx, m.Seq, m.Meta.Epoch)
}

// begin returns first, the sequence of the first message of a full file, or 0 when
// it is no base: it was found to be damaged, or its publisher had been fenced.
func (f *Feed) begin(ctx context.Context, first, epoch uint64) (uint64, error) {
	if f.badBases[first] {
		return 0, nil
	}
	claim, _, err := f.cfg.Stream.ClaimInForce(ctx, f.cfg.DB, first)
	if err != nil || claim != nil && epoch < claim.Epoch {
		return 0, err
	}
	return first, nil
}

// baseByHint follows tail's hint, and the hint of a base that was found to be
// damaged; 0: the hints lead nowhere.
func (f *Feed) baseByHint(ctx context.Context, tail *stream.Message) (uint64, error) {
	if tail.Meta.Full && tail.Meta.Part == tail.Meta.Parts {
		first, err := f.firstPart(ctx, tail)
		if err == nil && first != 0 {
			first, err = f.begin(ctx, first, tail.Meta.Epoch)
		}
		if err != nil || first != 0 {
			return first, err
		}
	}
	for hint := tail.Meta.Base; hint != 0; {
		m, err := f.cfg.Stream.Get(ctx, hint)
		if _, foreign := errors.AsType[*wire.HeaderError](err); foreign || errors.Is(err, stream.ErrNotFound) {
			return 0, nil
		} else if err != nil {
			return 0, err
		}
		if m.Meta.DB != f.cfg.DB || !m.Meta.Full || m.Meta.Part != 1 {
			return 0, nil
		}
		if first, err := f.begin(ctx, m.Seq, m.Meta.Epoch); err != nil || first != 0 {
			return first, err
		}
		if m.Meta.Base >= hint {
			return 0, nil
		}
		hint = m.Meta.Base
	}
	return 0, nil
}

// firstPart returns the sequence of the first part of the file whose last part
// is m, 0 when it is gone.
func (f *Feed) firstPart(ctx context.Context, m *stream.Message) (uint64, error) {
	if m.Meta.Parts == 1 {
		return m.Seq, nil
	}
	first, err := f.cfg.Stream.Find(ctx, f.cfg.DB, m.Meta.Min)
	if err != nil || first == nil || stream.FileOf(first.Meta) != stream.FileOf(m.Meta) || first.Meta.Part != 1 {
		return 0, err
	}
	return first.Seq, nil
}
