package publisher

import (
	"context"
	"errors"

	"github.com/ltxstream/ltxstream/internal/stream"
)

// head reads the head of the stream, with the claim in force. A claim of an
// older epoch behind it is junk, but must not hide it.
func (r *runner) head(ctx context.Context) (stream.Head, error) {
	h, err := r.st.Head(ctx, r.cfg.DB)
	if err != nil || h.Claim == nil || same(h.Claim, r.claim) {
		return h, err
	}
	h.Claim, h.ClaimSeq, err = r.st.ClaimInForce(ctx, r.cfg.DB, h.ClaimSeq+1)
	return h, err
}

// end returns the tail of h, whose newest data becomes the newest that readers take.
// Where that is too far away, only the claim is known.
func (r *runner) end(ctx context.Context, h *stream.Head) (tail, error) {
	passed, err := r.passOver(ctx, h)
	if c := h.Claim; err == nil && passed && h.Data == nil && c != nil {
		return tail{pos: c.Pos, writer: c.Writer, host: c.Host, time: c.Time, loose: true}, nil
	}
	return tailOf(*h), err
}

// maxPassed is how many messages are looked through for one that readers take.
const maxPassed = 1000

// passOver replaces the newest data of h by the newest that readers take: they
// ignore what was written under an older claim, and what is no file. nil: there is
// none, or it is too far away.
func (r *runner) passOver(ctx context.Context, h *stream.Head) (passed bool, err error) {
	newest := h.Data
	for n := 0; h.Data != nil; n++ {
		why, err := r.ignored(ctx, *h)
		if err != nil {
			return passed, err
		}
		if why == nil {
			break
		}
		passed = true
		r.cfg.Logger.Debug("message is not for readers", "seq", h.Data.Seq, "err", why)
		if n == maxPassed {
			h.Data = nil
		} else if h.Data, err = r.st.DataBefore(ctx, r.cfg.DB, h.Data.Seq); err != nil {
			return passed, err
		}
	}
	if passed {
		r.noteForeign(newest.Seq)
	}
	return passed, nil
}

// noteForeign says that messages up to seq were not for readers.
func (r *runner) noteForeign(seq uint64) {
	r.cfg.Logger.Warn("foreign messages at the end of the stream", "seq", seq)
	r.bump(func(s *counters) { s.Foreign++ })
}

var (
	errStale = errors.New("written under an older claim")
	errPart  = errors.New("the part before is not there")
)

// ignored returns why readers ignore the newest data of h, nil when they do not.
func (r *runner) ignored(ctx context.Context, h stream.Head) (why, err error) {
	if stale(h) {
		return errStale, nil
	}
	if why := h.Data.Check(); why != nil || h.Data.Meta.Part == 1 {
		return why, nil
	}
	m := h.Data
	for n := range maxBetween {
		if m, err = r.st.DataBefore(ctx, r.cfg.DB, m.Seq); err != nil {
			return nil, err
		}
		switch {
		case m == nil && n == 0: // trimmed
			return nil, nil
		case m == nil:
			return errPart, nil
		case m.Meta.Part >= h.Data.Meta.Part-1 && stream.FileOf(m.Meta) == stream.FileOf(h.Data.Meta):
			return nil, nil
		}
	}
	return errPart, nil
}

// maxBetween is how many messages of others may stand between two parts of a file.
const maxBetween = 100
