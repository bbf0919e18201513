package capture

import (
	"context"
	"errors"
	"fmt"

	"github.com/superfly/ltx"
)

// ErrDiverged is returned by Adopt when the database is not at the position.
var ErrDiverged = errors.New("database is not at this position")

// Adopt makes the position at which a stream ends that of this database, if the
// database's checksum proves it: ErrDiverged otherwise. Before Run.
func (c *Capture) Adopt(ctx context.Context, end End) (err error) {
	pos := end.Pos
	if err := c.pin(ctx); err != nil {
		return err
	}
	// Until Run nobody would yield; the change counter tells what happens meanwhile.
	defer func() { err = errors.Join(err, c.db.Unpin()) }()
	res, err := c.compareSums(ctx)
	if err != nil {
		return err
	}
	if res.total() != pos.PostApplyChecksum {
		return fmt.Errorf("%w: its checksum is %s, the position is %s", ErrDiverged, res.total(), pos)
	}
	if err := c.join(junction{end: end, pos: pos}); err != nil {
		return err
	}
	if err := c.spool.clear(); err != nil {
		return fmt.Errorf("clear spool: %w", err)
	}
	c.cfg.Crash("cleared")
	c.table.Reset(res.end.PageSize)
	if err := c.table.Update(pos, res.count, res.pages()); err != nil {
		return err
	}
	c.setPos(pos)
	c.at(res.end)
	c.counted(res.change)
	return c.saveCursor(res.end)
}

// compareSums reads the checksums of all pages, as of one commit.
func (c *Capture) compareSums(ctx context.Context) (compared, error) {
	for {
		res, err := compare(ctx, c.db, comparison{breathe: c.stepAside, awaited: c.awaited})
		if !errors.Is(err, errOvertaken) {
			return res, err
		}
	}
}

// Reseed makes the next file a full one that follows pos (zero: an empty
// stream), which is at or behind all that was captured, of a stream that ends at
// end. What the spool holds is dropped. It is durable: a run that begins before
// that file is captured goes on from here. Before Run.
func (c *Capture) Reseed(pos ltx.Pos, end End) error {
	if err := c.join(junction{end: end, pos: pos, full: true}); err != nil {
		return err
	}
	return c.beginAt(pos)
}
