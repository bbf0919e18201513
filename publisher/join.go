package publisher

import (
	"context"
	"errors"
	"fmt"

	"github.com/ltxstream/ltxstream/internal/capture"
	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/superfly/ltx"
)

// join leaves r at the head of the stream, with the claim.
func (r *runner) join(ctx context.Context) (err error) {
	if r.st, err = stream.Ensure(ctx, r.cfg.JS, r.streamConfig()); err != nil {
		return err
	}
	head, err := r.head(ctx)
	if err != nil {
		return err
	}
	if err := r.fenced(head); err != nil {
		return err
	}
	t, err := r.end(ctx, &head)
	if err != nil {
		return err
	}
	before := r.sent
	at, err := r.follow(ctx, t)
	if err != nil {
		return err
	}
	if r.begun && at.TXID > before && r.full == nil {
		r.bump(func(s *counters) { s.LostAcks++ })
	}
	r.seq = head.LastSeq
	if err := r.hold(ctx, head, at, at.TXID < before); err != nil {
		return err
	}
	r.begun, r.obeyed = true, r.obeyed || r.cfg.ForceReseed
	return r.findBase(ctx, head)
}

// follow makes the chain of this database go on behind t, and returns the
// position that the next file follows.
func (r *runner) follow(ctx context.Context, t tail) (ltx.Pos, error) {
	if r.full != nil && t.pos.TXID <= r.full.TXID {
		return *r.full, nil // decided before, and not published yet
	}
	l := r.local()
	var err error
	if l.after, err = r.after(ctx, l.new(t)); err != nil {
		return ltx.Pos{}, err
	}
	p := decide(t, l, r.cfg.ForceReseed && !r.obeyed)
	switch p.do {
	case refuse:
		return ltx.Pos{}, &AheadError{DB: r.cfg.DB, Archive: l.after, Stream: t.pos.TXID, Local: l.pos.TXID}
	case goOn:
		return p.at, r.goOn(t, p.at)
	case prove:
		return r.prove(ctx, t, p)
	default:
		return r.reseed(t, p.at)
	}
}

// after asks where an archive ends that is to be continued. Where there is a
// position to go on from, that it cannot be told holds up nothing.
func (r *runner) after(ctx context.Context, isNew bool) (ltx.TXID, error) {
	if r.cfg.After == nil || r.begun {
		return 0, nil
	}
	after, err := r.cfg.After(ctx)
	switch {
	case err == nil:
		return after, nil
	case ctx.Err() != nil:
		return 0, err
	case isNew:
		return 0, fmt.Errorf("%w: %w", ErrAfter, err)
	}
	r.cfg.Logger.Warn("the archive that was to be continued cannot be looked at, going on without", "err", err)
	return 0, nil
}

func (r *runner) local() local {
	l := local{pos: r.c.Pos(), writer: r.c.Writer(), host: r.host, time: r.known, known: r.c.PosAt, joined: r.c.Joined()}
	for f, ok := r.spooled(0); ok; f, ok = r.spooled(f.TXID()) {
		if f.Full {
			l.bases = append(l.bases, f.PrePos())
		}
	}
	return l
}

// goOn publishes what the spool holds behind at. Where that is not the end of
// the stream, it begins with a full file.
func (r *runner) goOn(t tail, at ltx.Pos) error {
	r.sent, r.full = at.TXID, nil
	if at != t.pos || t.loose {
		r.cfg.Logger.Warn("stream has a hole, publishing the spool from its full file on", "txid", (at.TXID + 1).String(), "end", t.pos.String())
		r.setAcked(ltx.Pos{})
		return nil
	}
	r.setAcked(at)
	return r.c.Acked(at.TXID)
}

// prove takes the end of the stream for the position of the database if their
// checksums are equal.
func (r *runner) prove(ctx context.Context, t tail, p plan) (ltx.Pos, error) {
	r.stopCapture()
	here := r.c.Pos()
	err := r.c.Adopt(ctx, capture.End{Pos: p.at, Time: t.time})
	switch {
	case errors.Is(err, capture.ErrDiverged) && r.claim != nil:
		// We are not fenced, and whoever publishes claims first: an end that is
		// not ours is a forgery, or damaged.
		r.cfg.Logger.Warn("the stream ends with what nobody claimed, publishing a full file behind it", "txid", here.String(), "end", t.pos.String())
		r.bump(func(s *counters) { s.Foreign++ })
		return r.reseed(t, later(t.pos, here))
	case errors.Is(err, capture.ErrDiverged) && p.elseReseed:
		r.cfg.Logger.Warn("database is older than what was published of it, publishing it as it is", "txid", here.String(), "end", t.pos.String())
		return r.reseed(t, later(t.pos, here))
	case errors.Is(err, capture.ErrDiverged):
		return ltx.Pos{}, &DivergedError{DB: r.cfg.DB, Path: r.cfg.Path, Stream: t.pos, Writer: t.writer, Local: here, cause: err}
	case err != nil:
		return ltx.Pos{}, err
	}
	r.cfg.Logger.Info("database is at the end of the stream, going on", "txid", p.at.TXID.String())
	r.renumber()
	r.sent = p.at.TXID
	r.unask()
	if p.full {
		r.full = &p.at
		r.c.Full()
		return p.at, nil
	}
	r.full = nil
	r.setAcked(p.at)
	return p.at, nil
}

// reseed makes a full file follow at, or what was captured meanwhile, and
// returns which of them it was. One that is being made already is left alone.
func (r *runner) reseed(t tail, at ltx.Pos) (ltx.Pos, error) {
	if !r.c.Reseeding(at, t.pos) {
		r.stopCapture()
		at = later(at, r.c.Pos())
		if err := r.c.Reseed(at, capture.End{Pos: t.pos, Time: t.time}); err != nil {
			return ltx.Pos{}, err
		}
	}
	r.cfg.Logger.Info("a full file follows", "txid", (at.TXID + 1).String())
	r.renumber()
	r.sent, r.full = at.TXID, &at
	return at, nil
}
