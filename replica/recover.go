package replica

import (
	"context"
	"fmt"
	"os"

	"github.com/ltxstream/ltxstream/internal/pagesum"
	"github.com/ltxstream/ltxstream/internal/wal"
	"github.com/superfly/ltx"
)

// recover finds the position of the database that was just opened: by the
// journal's entry of the last commit, else by comparing the content with the
// entries' checksums, else there is none (Lost). The page checksums are those
// of the content in every case.
func (r *Replica) recover(ctx context.Context) error {
	es, err := r.apply.journal.load()
	if err != nil {
		return err
	}
	s, err := r.live.state()
	if err != nil {
		return err
	}
	e, known := entryOf(es, s.Header)
	known = known && e.PageSize == s.pageSize && e.PageCount == s.pages
	if known && r.tableIs(e) {
		r.resume(e, foundByJournal)
		return nil
	}
	if known && r.catchUp(s, e, es) {
		r.resume(e, foundByFrames)
		return nil
	}
	sum, err := r.rebuild(ctx, s)
	if err != nil {
		return err
	}
	if known && e.Pos.PostApplyChecksum == sum {
		r.resume(e, foundByScan)
		return r.retitle(e.Pos.Pos)
	}
	if e, known = entryWith(es, sum, s.pageSize, s.pages); known {
		return r.adopt(ctx, s, e.Pos)
	}
	if blank, err := r.live.blank(s); err != nil || blank {
		r.resume(entry{}, "")
		return err
	}
	r.lose(es, s, sum)
	return nil
}

// blank reports whether the database has no schema at all: nothing is lost with
// it. A bootstrap that was cut short leaves such a one.
func (l *live) blank(s dbState) (bool, error) {
	if s.pages > 1 || s.MaxFrame > 0 {
		return false, nil
	}
	var b [108]byte
	_, err := l.db.ReadFile(b[:], 0)
	return err == nil && b[100] == leafTable && b[103] == 0 && b[104] == 0, err
}

const leafTable = 13 // type byte of a table leaf page (fileformat2.html section 1.6)

// tableIs reports whether the page checksums are whole and those of e.
func (r *Replica) tableIs(e entry) bool {
	t := r.apply.table
	return t.PageSize() == e.PageSize && t.Count() == e.PageCount && t.Pos() == e.Pos.Pos && t.Verify()
}

// catchUp brings page checksums that describe an earlier commit of the same
// generation up to e, from the frames in between.
func (r *Replica) catchUp(s dbState, e entry, es []entry) bool {
	t := r.apply.table
	from, ok := lastOf(es, func(o *entry) bool {
		return o.Salt == e.Salt && o.Frame <= e.Frame && o.Pos.Pos == t.Pos()
	})
	if !ok || t.PageSize() != e.PageSize {
		return false
	}
	changed, err := r.sumsOf(s, from.Frame, e.Frame)
	if err != nil {
		return false
	}
	return t.Update(e.Pos.Pos, e.PageCount, changed) == nil && t.Verify()
}

// sumsOf returns the checksums of the pages in the frames (after, last].
func (r *Replica) sumsOf(s dbState, after, last uint32) ([]pagesum.Page, error) {
	frames, err := r.live.db.Pages(after, last)
	if err != nil {
		return nil, err
	}
	page := make([]byte, s.pageSize)
	sums := make([]pagesum.Page, 0, len(frames))
	for _, f := range frames {
		pgno, frame := uint32(f>>32), uint32(f)
		if err := r.live.db.ReadPage(frame, s.pageSize, page); err != nil {
			return nil, err
		}
		sums = append(sums, pagesum.Page{Pgno: pgno, Sum: pagesum.Of(pgno, page)})
	}
	return sums, nil
}

// How Open found the position, in Status.FoundBy.
const (
	foundByJournal = "journal"          // the last commit and the page checksums are known
	foundByFrames  = "journal, frames"  // the last commit is; the page checksums missed some
	foundByScan    = "journal, content" // the last commit is; the page checksums were rebuilt
	foundByContent = "content"          // the last commit is not, but its content is
)

// resume makes e the position.
func (r *Replica) resume(e entry, how string) {
	r.live.Lock()
	r.live.lost, r.live.foundBy = nil, how
	r.live.Unlock()
	r.progress.set(e.Pos)
}

// retitle says in the page checksums which position they are of.
func (r *Replica) retitle(pos ltx.Pos) error {
	return r.apply.table.Update(pos, r.apply.table.Count(), nil)
}

// adopt makes pos the position of content that has its checksum, and gives the
// last commit an entry in the journal. Where there is no generation, one of our
// own begins: the salts of a WAL that was empty say nothing.
func (r *Replica) adopt(ctx context.Context, s dbState, pos Position) error {
	e := entry{Salt: s.Salt, Frame: s.MaxFrame, Sum: s.FrameSum, PageSize: s.pageSize, PageCount: s.pages, Pos: pos}
	if s.Salt == (wal.Salt{}) && s.MaxFrame == 0 {
		if err := r.beginGeneration(ctx, e); err != nil {
			return err
		}
	} else if err := r.apply.journal.append(e); err != nil {
		return err
	}
	r.cfg.crash("position adopted")
	if err := r.retitle(pos.Pos); err != nil {
		return err
	}
	r.resume(e, foundByContent)
	return nil
}

// beginGeneration starts a generation with salts that no other has, at the
// position of e, and writes its header.
func (r *Replica) beginGeneration(ctx context.Context, e entry) error {
	db := r.live.db
	if err := db.LockWithin(ctx, wal.Ckpt, ckptWait); err != nil {
		return err
	}
	defer db.Unlock(wal.Ckpt)
	h, err := db.Header()
	if err != nil {
		return err
	}
	next := wal.NextGeneration(h)
	e.Salt, e.Frame, e.Sum = next.Salt, 0, wal.Sum{}
	if err := r.apply.journal.append(e); err != nil {
		return err
	}
	if err := retryBusy(ctx, ckptWait, func() error { return db.Restart(next) }); err != nil {
		return err
	}
	return r.keepSalts(e.PageSize)
}

// keepSalts writes the header of a generation without frames, and gives the
// -wal file the size of one frame, so that the salts outlive a crash: SQLite
// looks at a header only when something follows. What follows is none of this
// generation: zeros, or a frame with other salts.
func (r *Replica) keepSalts(pageSize uint32) error {
	if _, err := r.live.db.Begin(pageSize, false); err != nil {
		return err
	}
	return os.Truncate(r.path+"-wal", wal.FrameOffset(2, pageSize))
}

// lose leaves the replica without a position.
func (r *Replica) lose(es []entry, s dbState, sum ltx.Checksum) {
	lost := &LostError{Path: r.path, Content: sum, PageSize: s.pageSize, Pages: s.pages}
	if last, ok := lastOf(es, func(*entry) bool { return true }); ok {
		lost.Last = last.Pos
	}
	r.setLost(lost)
	r.progress.set(Position{})
}

// Adopt makes pos the position of a lost replica whose content has been found
// to be that position, by a file of the stream or the archive that ends with
// its checksum. Durable as an applied file is. ErrDiverged: the content has
// another checksum.
func (r *Replica) Adopt(ctx context.Context, pos Position) error {
	r.apply.Lock()
	defer r.apply.Unlock()
	lost := r.Lost()
	if lost == nil || lost.Content != pos.PostApplyChecksum || pos.TXID == 0 {
		return fmt.Errorf("adopt position %s: %w", pos.Pos, ErrDiverged)
	}
	s, err := r.live.state()
	if err == nil {
		err = r.adopt(ctx, s, pos)
	}
	if err != nil {
		return fmt.Errorf("adopt position %s: %w", pos.Pos, err)
	}
	return nil
}
