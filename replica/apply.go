package replica

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/wal"
)

// ApplyInfo is what the LTX file itself does not say.
type ApplyInfo struct {
	Full bool    // the file holds every page and applies to any position
	Post ltx.Pos // the position it must lead to; zero: any
	// NoChecksums accepts a file that bears no database checksums, as those of
	// Litestream: the caller vouches that it is of the replica's history, and
	// the checksum after it is computed. Without it such a file is ErrDamaged.
	NoChecksums bool
	// Seq returns the stream sequence of its last message, 0: unknown. It is
	// called once the file was read; nil: unknown.
	Seq func() uint64
}

// position returns the position after the file that c was read from.
func (i ApplyInfo) position(c *changes) (Position, error) {
	p := Position{Pos: c.pos()}
	if !i.Post.IsZero() && p.Pos != i.Post {
		return p, damaged("the file leads to %s, %s was announced", p.Pos, i.Post)
	}
	if i.Seq != nil {
		p.Seq = i.Seq()
	}
	return p, nil
}

// Apply brings the replica to the end of an LTX file in one transaction, which
// is visible to every reader that begins after Apply returned. The file is
// verified whole before any of it is visible; after an error nothing visible has
// changed. It survives a crash of the process at once, and a power loss once
// the WAL was checkpointed. sr is read once, from its start to its end, and not
// kept: it may be on its way still.
//
// A file that begins at or before the position and ends after it applies too:
// it holds the newest content of whatever changed since it began.
//
// Errors: *PosError when the file does not reach beyond the position or leaves
// a gap, ErrDiverged when it belongs to another history, ErrDamaged,
// ErrPageSize, ErrMoved, ErrClosed; others are of the file system and may pass.
func (r *Replica) Apply(ctx context.Context, sr *io.SectionReader, info ApplyInfo) error {
	r.apply.Lock()
	defer r.apply.Unlock()
	if r.apply.journal == nil {
		return ErrClosed
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := r.applyFile(ctx, sr, info); err != nil {
		return fmt.Errorf("apply LTX file: %w", err)
	}
	return nil
}

func (r *Replica) applyFile(ctx context.Context, sr *io.SectionReader, info ApplyInfo) error {
	began := time.Now()
	scan, c := &r.apply.scan, &r.apply.changes
	if err := scan.Reset(sr); err != nil {
		return err
	}
	h := scan.Header()
	c.full = info.Full || h.IsSnapshot()
	if h.NoChecksum() && !info.NoChecksums {
		return damaged("file carries no database checksum")
	}
	if err := r.checkPlace(c, h); err != nil {
		return err
	}
	var err error
	if r.live.live == nil || r.apply.table.PageSize() != h.PageSize {
		err = r.bootstrap(ctx, info)
	} else {
		err = r.applyLive(ctx, info)
	}
	if err == nil {
		r.counters.applied(c, sr.Size(), time.Since(began))
	}
	return err
}

// checkPlace decides by the header whether the file has its place behind the
// position.
func (r *Replica) checkPlace(c *changes, h ltx.Header) error {
	if err := c.checkHeader(h); err != nil {
		return err
	}
	if c.full {
		return nil
	}
	have, pre := r.Position().Pos, h.PreApplyPos()
	switch {
	case have.IsZero(), h.MinTXID > have.TXID+1, h.MaxTXID <= have.TXID,
		h.MinTXID == have.TXID+1 && pre != have && !h.NoChecksum():
		return &PosError{Have: have, Pre: pre, Max: h.MaxTXID}
	case h.PageSize != r.apply.table.PageSize():
		return damaged("page size %d, the replica has %d", h.PageSize, r.apply.table.PageSize())
	}
	return nil
}

// applyLive makes the file whose header was read one transaction. Pages of a large
// file become frames while it is read; they are no part of any commit, and in
// nobody's way, until the file turned out to be whole and its last frame follows.
func (r *Replica) applyLive(ctx context.Context, info ApplyInfo) error {
	if err := r.freshTable(ctx); err != nil {
		return err
	}
	w := writing{ctx: ctx, r: r}
	c := &r.apply.changes
	if err := c.read(&r.apply.scan, true, w.put); err != nil {
		return err
	}
	if err := r.verify(ctx, c); err != nil {
		return err
	}
	if c.whole {
		for i := range c.pages {
			if err := w.put(i, c.image(i)); err != nil {
				return err
			}
		}
	}
	pos, err := info.position(c)
	if err != nil {
		return err
	}
	return w.commit(pos)
}

// verify holds the rolling checksum after the file, which was read whole, against
// what its trailer says; where that says nothing, it becomes what was computed.
func (r *Replica) verify(ctx context.Context, c *changes) error {
	if c.full {
		return r.verifyFull(c)
	}
	if err := c.checkHoles(r.apply.table.Count()); err != nil {
		return err
	}
	switch after := r.apply.table.After(c.header.Commit, c.pages); {
	case c.header.NoChecksum():
		c.post = after
	case after != c.post:
		return r.mismatch(ctx, c)
	}
	return nil
}

func (r *Replica) verifyFull(c *changes) error {
	if err := c.checkHoles(0); err != nil {
		return err
	}
	switch sum := c.sum(); {
	case c.header.NoChecksum():
		c.post = sum
	case sum != c.post:
		return damaged("checksum of the full file is %s, its trailer says %s", sum, c.post)
	}
	return nil
}

// mismatch finds out whether the file, the page checksums or the replica is
// wrong when the rolling checksum after the file is not what its trailer says:
// the content decides.
func (r *Replica) mismatch(ctx context.Context, c *changes) error {
	r.apply.stale = true
	if err := r.freshTable(ctx); err != nil {
		return err
	}
	if after := r.apply.table.After(c.header.Commit, c.pages); after != c.post {
		return damaged("checksum after the file would be %s, its trailer says %s", after, c.post)
	}
	return nil
}

// freshTable rebuilds page checksums that are known to be wrong.
func (r *Replica) freshTable(ctx context.Context) error {
	if !r.apply.stale {
		return nil
	}
	s, err := r.live.state()
	if err != nil {
		return err
	}
	sum, err := r.rebuild(ctx, s)
	if err != nil {
		return fmt.Errorf("rebuild page checksums: %w", err)
	}
	pos := r.Position().Pos
	if !pos.IsZero() && sum != pos.PostApplyChecksum {
		return fmt.Errorf("content has checksum %s, position is %s: %w", sum, pos, ErrDiverged)
	}
	r.apply.stale = false
	return r.retitle(ltx.Pos{TXID: pos.TXID, PostApplyChecksum: sum})
}

// committed follows a commit that readers see already: nothing of it can fail.
func (r *Replica) committed(l *live, h wal.Header, pos Position) {
	c := &r.apply.changes
	if err := r.apply.table.Update(pos.Pos, c.header.Commit, c.pages); err != nil {
		r.apply.stale = true
		r.log().Warn("page checksums not updated", "txid", pos.TXID, "err", err)
	}
	r.cfg.crash("checksums updated")
	r.setLost(nil)
	r.progress.set(pos)
	if err := r.apply.journal.compact(journalLimit); err != nil {
		r.log().Warn("position journal not rewritten", "err", err)
	}
	poke(l.dirty)
	if pending(h, l.db.Backfilled()) > r.cfg.SoftWALLimit/2 {
		poke(l.hurry)
	}
}

// commitNothing moves the position over a file that changes no byte: the last
// commit is now that of pos.
func (r *Replica) commitNothing(ctx context.Context, pos Position) error {
	s, err := r.live.state()
	if err != nil {
		return err
	}
	return r.adopt(ctx, s, pos)
}
