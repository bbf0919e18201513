package capture

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/ltxstream/ltxstream/internal/keeper"
	"github.com/ltxstream/ltxstream/internal/pagesum"
	"github.com/ltxstream/ltxstream/internal/wal"
	"github.com/superfly/ltx"
)

func (c *Capture) openPrimary(ctx context.Context) (err error) {
	if c.keeper, err = keeper.Open(ctx, c.cfg.Path); err != nil {
		return err
	}
	if c.keeper.Switched() {
		c.cfg.Logger.Info("database switched to wal mode", "path", c.cfg.Path)
	}
	if c.db, err = wal.Open(c.cfg.Path); err != nil {
		return fmt.Errorf("open %s: %w", c.cfg.Path, err)
	}
	return nil
}

// closePrimary closes what openPrimary opened, the keeper last.
func (c *Capture) closePrimary() error {
	var errs []error
	if c.db != nil {
		db, shm := c.db.IDs()
		errs = append(errs, c.db.Close())
		if c.keeper != nil {
			errs = append(errs, c.keeper.Close())
		}
		if c.cfg.SoleOwner {
			errs = append(errs, wal.CloseIdle(db), wal.CloseIdle(shm))
		}
	} else if c.keeper != nil {
		errs = append(errs, c.keeper.Close())
	}
	c.primary = primary{}
	return errors.Join(errs...)
}

// reopen follows the name of the database to the file that it now leads to.
func (c *Capture) reopen(ctx context.Context) error {
	if c.db != nil {
		c.cfg.Logger.Warn("database file was replaced", "path", c.cfg.Path)
		c.notifier.unwatch(c.cfg.Path + "-wal")
	}
	c.unsure = true
	if err := c.closePrimary(); err != nil {
		return fmt.Errorf("close replaced database: %w", err)
	}
	if err := c.openPrimary(ctx); err != nil {
		return errors.Join(err, c.closePrimary())
	}
	c.watch()
	return nil
}

func (c *Capture) watch() {
	if err := c.notifier.watch(c.cfg.Path+"-wal", c.wake); err != nil {
		c.cfg.Logger.Warn("file changes are not notified, polling only", "path", c.cfg.Path, "err", err)
	}
}

// at says that everything up to chain, where the header's change counter was
// change, has been captured.
func (c *Capture) at(chain wal.Chain, change uint32) {
	c.chain, c.change, c.unsure = chain, change, false
}

// pin pins the WAL, waiting up to 5 s for readers to let go of a slot.
func (c *Capture) pin(ctx context.Context) error {
	deadline := time.Now().Add(5 * time.Second)
	for {
		err := c.db.Pin()
		if err == nil || !errors.Is(err, wal.ErrBusy) || time.Now().After(deadline) {
			c.resting = c.resting && err != nil
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Millisecond):
		}
	}
}

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
		c.mu.pos, c.enc.lastTime = f.Pos(), f.Header.Timestamp
	}
	if !c.table.Pos().IsZero() {
		c.resume()
	}
	return nil
}

// behind reports whether f, the last file, is the update that the table lacks.
func (c *Capture) behind(f File) bool {
	switch {
	case c.table.Pos() == f.Pos() && c.table.Unfinished() == 0:
		return f.Full && !c.table.Verify()
	default:
		return f.Full || c.table.Unfinished() == f.TXID() || c.table.Pos() == f.PrePos()
	}
}

// redo enters the pages of f into the table.
func (c *Capture) redo(f File) error {
	r, err := f.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	dec := ltx.NewDecoder(newSection(r, f.Size))
	if err := dec.DecodeHeader(); err != nil {
		return err
	}
	var sums []pagesum.Page
	page := make([]byte, f.Header.PageSize)
	for {
		var h ltx.PageHeader
		if err := dec.DecodePage(&h, page); isEOF(err) {
			break
		} else if err != nil {
			return err
		}
		sums = append(sums, pagesum.Page{Pgno: h.Pgno, Sum: pagesum.Of(h.Pgno, page)})
	}
	if f.Full || c.table.PageSize() != f.Header.PageSize {
		c.table.Reset(f.Header.PageSize)
	}
	return c.table.Update(f.Pos(), f.Header.Commit, sums)
}

// resume finds the captured place in the WAL as it is now: with the recorded
// salts, the generation is the recorded one, and nothing can have been missed.
// Any other salts leave the place unknown.
func (c *Capture) resume() {
	h, err := c.db.Header()
	if err != nil {
		return
	}
	for _, p := range c.places() {
		if p.txid != c.mu.pos.TXID || p.salt != h.Salt || p.frame > h.MaxFrame {
			continue
		}
		if chain, err := chainAt(c.db, h, p.frame); err == nil {
			c.at(chain, 0)
			return
		}
	}
}

func (c *Capture) places() (ps []place) {
	if p, ok := c.state.loadCursor(); ok {
		ps = append(ps, p)
	}
	if f, ok := c.spool.last(); ok {
		ps = append(ps, placeOf(f))
	}
	return ps
}

// chainAt returns the chain behind frame of the current generation: a frame's
// header holds the running checksum up to it.
func chainAt(db *wal.DB, h wal.Header, frame uint32) (wal.Chain, error) {
	chain := h.Chain()
	chain.Frame, chain.Sum = 0, wal.Sum{}
	if frame == 0 {
		return chain, nil
	}
	var b [wal.FrameHeaderSize]byte
	if _, err := db.ReadWAL(b[:], wal.FrameOffset(frame, h.PageSize)); err != nil {
		return wal.Chain{}, fmt.Errorf("read wal frame %d: %w", frame, err)
	}
	be := binary.BigEndian
	if (wal.Salt{be.Uint32(b[8:]), be.Uint32(b[12:])}) != h.Salt || be.Uint32(b[4:]) == 0 {
		return wal.Chain{}, fmt.Errorf("wal frame %d is not a commit of this generation: %w", frame, wal.ErrChain)
	}
	chain.Frame, chain.Sum = frame, wal.Sum{be.Uint32(b[16:]), be.Uint32(b[20:])}
	return chain, nil
}
