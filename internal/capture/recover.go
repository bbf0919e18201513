package capture

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/ltxstream/ltxstream/internal/ltxfile"
	"github.com/ltxstream/ltxstream/internal/pagesum"
	"github.com/ltxstream/ltxstream/internal/wal"
)

// openTable opens the page checksum table, anew where it is damaged.
func (c *Capture) openTable() (*pagesum.Table, error) {
	path := filepath.Join(c.cfg.StateDir, "checksums")
	t, err := pagesum.Open(path)
	if errors.Is(err, pagesum.ErrCorrupt) {
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("remove damaged page checksums: %w", err)
		}
		return pagesum.Open(path)
	}
	return t, err
}

// recoverPosition makes the table agree with the spool's last file: a kill may
// have come between the two. Where the table cannot be trusted, it is emptied,
// and a full file will follow what the spool holds.
func (c *Capture) recoverPosition() error {
	c.unsure = true
	if due, err := c.recoverJunction(); due || err != nil {
		return err
	}
	f, ok := c.spool.last()
	if ok && c.behind(f) {
		if err := c.redo(f); err != nil {
			return fmt.Errorf("complete page checksums: %w", err)
		}
	}
	if !c.table.Verify() || ok && c.table.Pos() != f.Pos() {
		c.cfg.Logger.Warn("page checksums are not those of what was captured, a full file will follow",
			"path", c.cfg.Path, "table", c.table.Pos().String(), "spool", f.Pos().String())
		c.table.Reset(0)
	}
	if c.mu.pos = c.table.Pos(); ok {
		c.mu.pos = f.Pos()
		c.enc.notBefore(f.Header.Timestamp)
	}
	if !c.table.Pos().IsZero() {
		c.resume(f)
	}
	return nil
}

// behind reports whether f, the last file, is the update that the table lacks.
func (c *Capture) behind(f File) bool {
	if c.table.Pos() == f.Pos() && c.table.Unfinished() == 0 {
		return f.Full && !c.table.Verify()
	}
	return f.Full || c.table.Unfinished() == f.TXID() || c.table.Pos() == f.PrePos()
}

// redo enters the pages of f into the table.
func (c *Capture) redo(f File) error {
	r, err := f.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	scan, err := ltxfile.NewScanner(io.NewSectionReader(r, 0, f.Size))
	if err != nil {
		return err
	}
	var sums []pagesum.Page
	page := make([]byte, f.Header.PageSize)
	for {
		frame, err := scan.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if err := frame.Decode(page); err != nil {
			return err
		}
		sums = append(sums, pagesum.Page{Pgno: frame.Pgno, Sum: pagesum.Of(frame.Pgno, page)})
	}
	if f.Full || c.table.PageSize() != f.Header.PageSize {
		c.table.Reset(f.Header.PageSize)
	}
	return c.table.Update(f.Pos(), f.Header.Commit, sums)
}

// resume finds the captured place in the WAL as it is now. If the generation
// is the recorded one, and its frames up to the recorded place are those that
// were captured, nothing can have been missed. Else the place stays unknown.
func (c *Capture) resume(last File) {
	h, err := c.db.Header()
	if err != nil || h.Salt == (wal.Salt{}) {
		return // a WAL without a header has no identity
	}
	file, _ := c.db.IDs()
	p, ok := c.state.cursor.load()
	if !ok || p.file != file {
		return // not a place in this very file
	}
	if chain, ok := c.standsAt(h, p); ok {
		c.resumeAt(h, chain)
	} else if last.Header.WALSize > 0 {
		if chain, ok := c.endsAt(h, last); ok {
			c.resumeAt(h, chain)
		}
	}
}

// resumeAt goes on at chain in the WAL of h.
func (c *Capture) resumeAt(h wal.Header, chain wal.Chain) {
	c.at(chain)
	if chain.Frame == 0 && h.MaxFrame > 0 {
		start, err := startOf(c.db, h)
		if err != nil {
			return
		}
		chain = start
	}
	if n, err := countCommits(c.db, chain, h.MaxFrame); err == nil {
		c.counted(h.Change - n)
	}
}

// standsAt reports whether the WAL of h still holds what was captured up to p.
func (c *Capture) standsAt(h wal.Header, p place) (wal.Chain, bool) {
	if p.txid != c.mu.pos.TXID || p.salt != h.Salt || p.frame > h.MaxFrame || h.MaxFrame > 0 && h.PageSize != c.table.PageSize() {
		return wal.Chain{}, false
	}
	chain, err := chainAt(c.db, h, p.frame)
	return chain, err == nil && chain.Sum == p.sum
}

// endsAt reports whether the WAL of h holds the very frames that the last file
// was made of: a kill came before the cursor was written. The file's header
// has their place, the table their content.
func (c *Capture) endsAt(h wal.Header, last File) (wal.Chain, bool) {
	lh := last.Header
	first := wal.FramesIn(lh.WALOffset, lh.PageSize)
	end := wal.FramesIn(lh.WALOffset+lh.WALSize, lh.PageSize)
	if lh.WALSalt1 != h.Salt[0] || lh.WALSalt2 != h.Salt[1] || end > h.MaxFrame || h.PageSize != lh.PageSize {
		return wal.Chain{}, false
	}
	chain, err := chainAt(c.db, h, end)
	if err != nil {
		return wal.Chain{}, false
	}
	pages, err := c.db.Pages(first, end)
	if err != nil {
		return wal.Chain{}, false
	}
	page, lock := make([]byte, h.PageSize), wal.LockPgno(h.PageSize)
	for _, e := range pages {
		pgno := uint32(e >> 32)
		if pgno > lh.Commit || pgno == lock {
			continue
		}
		if err := c.db.ReadPage(uint32(e), h.PageSize, page); err != nil || pagesum.Of(pgno, page) != c.table.Get(pgno) {
			return wal.Chain{}, false
		}
	}
	return chain, true
}
