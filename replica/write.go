package replica

import (
	"context"
	"fmt"

	"github.com/ltxstream/ltxstream/internal/wal"
)

// writing is the transaction that an LTX file becomes. Pages are put in their
// order; the last one that has to be written is kept back until commit, because
// its frame is what makes the others valid. Dropping a writing aborts it.
type writing struct {
	ctx context.Context // of the Apply that it is a part of
	r   *Replica
	a   *wal.Appender // nil: nothing was added yet

	first kept // page of the file
	last  kept // to be written
}

// kept is a copy of one page.
type kept struct {
	pgno uint32 // 0: none
	page []byte
}

func (k *kept) set(pgno uint32, page []byte) {
	k.pgno, k.page = pgno, append(k.page[:0], page...)
}

// put takes page i of the file. Pages that are in the replica already are left out.
func (w *writing) put(i int, page []byte) error {
	if i&1023 == 1023 && w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	pgno := w.r.apply.changes.pages[i].Pgno
	if i == 0 {
		w.first.set(pgno, page)
	}
	if w.r.unchanged(&w.r.apply.changes, i) {
		return nil
	}
	if err := w.add(0); err != nil {
		return err
	}
	w.last.set(pgno, page)
	return nil
}

// add adds the page that was kept back, if there is one.
func (w *writing) add(commit uint32) error {
	if w.last.pgno == 0 {
		return nil
	}
	if w.a == nil {
		if err := w.begin(); err != nil {
			return err
		}
	}
	if err := w.a.Add(w.last.pgno, commit, w.last.page); err != nil {
		return err
	}
	w.r.cfg.crash("page added")
	return nil
}

func (w *writing) begin() (err error) {
	l := w.r.live.live
	if l.hasMoved() {
		return ErrMoved
	}
	if err := w.r.restartIfDue(w.ctx); err != nil {
		return err
	}
	w.a, err = l.db.Begin(w.r.apply.changes.header.PageSize, false)
	return err
}

// commit makes the transaction visible, at pos. The file was verified.
func (w *writing) commit(pos Position) error {
	r, c := w.r, &w.r.apply.changes
	if w.last.pgno == 0 && w.first.pgno != 0 && c.header.Commit != r.apply.table.Count() {
		w.last = w.first // a database that only shrinks needs one page to carry the commit
	}
	if w.last.pgno == 0 {
		return r.commitNothing(w.ctx, pos)
	}
	if err := w.add(c.header.Commit); err != nil {
		return err
	}
	l := r.live.live
	if l.hasMoved() {
		return ErrMoved
	}
	// The last frame, which makes the transaction valid, is still in the
	// Appender: whatever a crash leaves from here on, the journal knows it.
	e := entry{Salt: w.a.Salt(), Frame: w.a.Last(), Sum: w.a.Chain().Sum, PageSize: c.header.PageSize, PageCount: c.header.Commit, Pos: pos}
	if err := r.apply.journal.append(e); err != nil {
		return err
	}
	r.cfg.crash("position journaled")
	if err := w.a.Flush(); err != nil {
		return err
	}
	r.cfg.crash("frames written")
	h, err := w.a.Commit(c.header.Commit)
	if err != nil {
		return fmt.Errorf("commit TXID %s: %w", pos.TXID, err)
	}
	r.cfg.crash("header written")
	r.committed(l, h, pos)
	return nil
}

// unchanged reports whether page i of a full file is in the replica already.
func (r *Replica) unchanged(c *changes, i int) bool {
	p := c.pages[i]
	return c.full && r.apply.table.Get(p.Pgno) == p.Sum
}
