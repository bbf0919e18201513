package capture

import (
	"context"
	"errors"
	"fmt"

	"github.com/superfly/ltx"
)

// ErrDiverged is returned by Adopt when the database is not at the position.
var ErrDiverged = errors.New("database is not at this position")

// Adopt makes pos, at which a stream ends, the position of this database, if
// the database's checksum proves it: ErrDiverged otherwise. Before Run.
func (c *Capture) Adopt(ctx context.Context, pos ltx.Pos) error {
	if err := c.pin(ctx); err != nil {
		return err
	}
	res, err := compare(ctx, c.db, comparison{})
	if err != nil {
		return err
	}
	if res.total() != pos.PostApplyChecksum {
		return fmt.Errorf("%w: its checksum is %s, the position is %s", ErrDiverged, res.total(), pos)
	}
	if err := c.spool.clear(); err != nil {
		return fmt.Errorf("clear spool: %w", err)
	}
	c.table.Reset(res.end.PageSize)
	if err := c.table.Update(pos, res.count, res.pages()); err != nil {
		return err
	}
	c.setPos(pos)
	c.at(res.end)
	c.counted(res.change)
	if err := c.saveCursor(res.end); err != nil {
		return err
	}
	return c.db.Unpin() // until Run nobody would yield; the change counter tells what happens meanwhile
}

// Reseed makes the next file a full one that follows pos, at which a stream
// ends (zero: an empty stream). What the spool holds is dropped. Before Run.
func (c *Capture) Reseed(pos ltx.Pos) error {
	if err := c.spool.clear(); err != nil {
		return fmt.Errorf("clear spool: %w", err)
	}
	c.table.Reset(c.table.PageSize())
	c.setPos(pos)
	c.unsure = true
	c.mu.full = true
	return nil
}
