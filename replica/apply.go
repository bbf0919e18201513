package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/wal"
)

// ApplyInfo is what the LTX file itself does not say.
type ApplyInfo struct {
	Full bool   // the file holds every page and applies to any position
	Seq  uint64 // stream sequence of its last message; 0: unknown
}

// Apply brings the replica to the end of an LTX file in one transaction, which
// is visible to every reader that begins after Apply returned. The file is
// verified whole before anything is written; after an error nothing visible has
// changed. It survives a crash of the process at once, and a power loss once
// the WAL was checkpointed. sr is read once, or twice when its pages take more
// than 8 MiB, and not kept.
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
	d, c := &r.apply.decoder, &r.apply.changes
	if err := d.start(sr); err != nil {
		return err
	}
	c.full = info.Full || d.header.IsSnapshot()
	if err := r.checkPlace(c, d.header); err != nil {
		return err
	}
	var err error
	if r.live.live == nil || r.apply.table.PageSize() != d.header.PageSize {
		err = r.bootstrap(ctx, sr, info)
	} else if err = r.verify(ctx, c); err == nil {
		err = r.commit(ctx, sr, info)
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
		h.MinTXID == have.TXID+1 && pre != have:
		return &PosError{Have: have, Pre: pre, Max: h.MaxTXID}
	case h.PageSize != r.apply.table.PageSize():
		return damaged("page size %d, the replica has %d", h.PageSize, r.apply.table.PageSize())
	}
	return nil
}

// verify reads the file and computes the rolling checksum after it, before
// anything is written.
func (r *Replica) verify(ctx context.Context, c *changes) error {
	if err := c.read(&r.apply.decoder, nil); err != nil {
		return err
	}
	if c.full {
		return r.verifyFull(c)
	}
	if err := r.freshTable(ctx); err != nil {
		return err
	}
	if err := c.checkHoles(r.apply.table.Count()); err != nil {
		return err
	}
	if r.apply.table.After(c.header.Commit, c.pages) == c.post {
		return nil
	}
	return r.mismatch(ctx, c)
}

func (r *Replica) verifyFull(c *changes) error {
	if err := c.checkHoles(0); err != nil {
		return err
	}
	if sum := c.sum(); sum != c.post {
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

// commit writes the verified changes as one transaction.
func (r *Replica) commit(ctx context.Context, sr *io.SectionReader, info ApplyInfo) error {
	c, l := &r.apply.changes, r.live.live
	if l.hasMoved() {
		return ErrMoved
	}
	if err := r.freshTable(ctx); err != nil {
		return err
	}
	if err := r.restartIfDue(ctx); err != nil {
		return err
	}
	last := r.lastWritten(c)
	pos := Position{Pos: c.pos(), Seq: info.Seq}
	if last < 0 {
		return r.commitNothing(ctx, pos)
	}
	a, err := l.db.Begin(c.header.PageSize, false)
	if err != nil {
		return err
	}
	if err := r.addPages(ctx, a, sr, last); err != nil {
		return err
	}
	// The last frame, which makes the transaction valid, is still in the
	// Appender: whatever a crash leaves from here on, the journal knows it.
	e := entry{Salt: a.Salt(), Frame: a.Last(), Sum: a.Chain().Sum, PageSize: c.header.PageSize, PageCount: c.header.Commit, Pos: pos}
	if err := r.apply.journal.append(e); err != nil {
		return err
	}
	r.cfg.crash("position journaled")
	if err := a.Flush(); err != nil {
		return err
	}
	r.cfg.crash("frames written")
	h, err := a.Commit(c.header.Commit)
	if err != nil {
		return err
	}
	r.cfg.crash("header written")
	r.committed(l, h, pos)
	return nil
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

// lastWritten returns the index of the last page to write; -1: none has
// changed. A database that only shrinks needs one page to carry the commit.
func (r *Replica) lastWritten(c *changes) int {
	for i := len(c.pages) - 1; i >= 0; i-- {
		if !r.unchanged(c, i) {
			return i
		}
	}
	if len(c.pages) > 0 && c.header.Commit != r.apply.table.Count() {
		return 0
	}
	return -1
}

// unchanged reports whether page i of a full file is in the replica already.
func (r *Replica) unchanged(c *changes, i int) bool {
	p := c.pages[i]
	return c.full && r.apply.table.Get(p.Pgno) == p.Sum
}

// addPages hands the pages up to index last to a.
func (r *Replica) addPages(ctx context.Context, a *wal.Appender, sr *io.SectionReader, last int) error {
	c := &r.apply.changes
	page := func(i int) ([]byte, error) { return c.image(i), nil }
	if !c.whole {
		next, err := r.rereader(sr)
		if err != nil {
			return err
		}
		page = next
	}
	for i := range last + 1 {
		if i&1023 == 1023 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		b, err := page(i)
		if err != nil {
			return err
		}
		if i != last && r.unchanged(c, i) {
			continue
		}
		var commit uint32
		if i == last {
			commit = c.header.Commit
		}
		if err := a.Add(c.pages[i].Pgno, commit, b); err != nil {
			return err
		}
		r.cfg.crash("page added")
	}
	return nil
}

// rereader decodes a verified file once more, page by page from index 0, and
// refuses a page that is not the one verified.
func (r *Replica) rereader(sr *io.SectionReader) (func(i int) ([]byte, error), error) {
	d, c := &r.apply.decoder, &r.apply.changes
	if err := d.start(sr); err != nil {
		return nil, err
	}
	if d.header != c.header {
		return nil, damaged("header changed between two reads")
	}
	page := c.page[:c.header.PageSize]
	return func(i int) ([]byte, error) {
		p, err := d.next(page)
		if errors.Is(err, io.EOF) {
			err = damaged("file became shorter between two reads")
		}
		if err == nil && c.pages[i] != p {
			err = damaged("page %d changed between two reads", p.Pgno)
		}
		return page, err
	}, nil
}
