package feed

import (
	"context"
	"errors"

	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/wire"
)

// locateBase starts before the newest complete full file: the tail itself, the
// one its hint names, or the last one found by reading all headers.
func (f *Feed) locateBase(ctx context.Context) error {
	state, err := f.cfg.Stream.State(ctx)
	if err != nil {
		return err
	}
	f.identify(state)
	head, err := f.Head(ctx)
	if err != nil {
		return err
	}
	if head.Data == nil && !head.Far {
		return ErrNoBase
	}
	first, err := f.oldestBase(ctx)
	if err == nil && first == 0 && head.Data != nil {
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

// identify forgets what was found to be damaged in a stream that is gone.
func (f *Feed) identify(state stream.State) {
	if !state.Created.Equal(f.created) {
		f.created = state.Created
		clear(f.badBases)
	}
}

// noteBadBase makes the search for a base pass over the full file at seq.
func (f *Feed) noteBadBase(seq uint64) {
	if f.badBases == nil {
		f.badBases = map[uint64]bool{}
	}
	f.badBases[seq] = true
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
	claim, err := f.claimAt(ctx, first)
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
		if err != nil || first == 0 { // a scan finds it, where it is whole
			return 0, err
		}
		if first, err = f.begin(ctx, first, tail.Meta.Epoch); err != nil || first != 0 {
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
