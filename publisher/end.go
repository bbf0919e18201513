package publisher

import (
	"context"

	"github.com/ltxstream/ltxstream/internal/stream"
)

// head reads the head of the stream, with the claim in force. A claim of an
// older epoch behind it is junk, but must not hide it. Without any, data stands for
// the claim that it was written under: it had better be data.
func (r *runner) head(ctx context.Context) (stream.Head, error) {
	h, err := r.st.Head(ctx, r.cfg.DB)
	switch {
	case err != nil || same(h.Claim, r.claim):
		return h, err
	case h.Claim == nil:
		_, err = r.passOver(ctx, &h)
		return h, err
	}
	err = r.st.Enforce(ctx, r.cfg.DB, &h)
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

// passOver replaces the newest data of h by the newest that readers take, and reports
// whether it did.
func (r *runner) passOver(ctx context.Context, h *stream.Head) (bool, error) {
	why, err := r.st.PassOver(ctx, r.cfg.DB, h)
	if why != nil {
		r.noteForeign(h.LastSeq, why)
	}
	return why != nil, err
}

// noteForeign says that messages up to seq were not for readers.
func (r *runner) noteForeign(seq uint64, why error) {
	r.cfg.Logger.Warn("foreign messages at the end of the stream", "seq", seq, "err", why)
	r.bump(func(s *counters) { s.Foreign++ })
}
