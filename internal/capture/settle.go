package capture

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/ltxstream/ltxstream/internal/wal"
)

// errUnsettled is returned while the file put in place may still be being written:
// opening it would write to it. Each is said once, in this order.
var (
	errUnsettled = errors.New("database file was replaced and may not be complete yet")
	errNoContent = fmt.Errorf("%w: it is empty", errUnsettled)
	errShort     = fmt.Errorf("%w: it is shorter than its header says", errUnsettled)
)

const settleQuiet = 100 * time.Millisecond // after the last write to a file

// awaitSettled returns errUnsettled while another file than before is in place, and
// is not whole or has been written to a moment ago. An empty one is left alone for
// as long as it is: there is nothing to capture, and whoever made it may be about to
// write it. No lock is taken.
func (c *Capture) awaitSettled() error {
	now, err := wal.Identify(c.cfg.Path)
	if err != nil || now == c.left.db {
		return nil // who opens it will say so
	}
	fi, err := os.Stat(c.cfg.Path)
	switch {
	case err != nil:
		return err
	case fi.Size() == 0:
		return errNoContent
	}
	switch whole, err := c.whole(now); {
	case err != nil:
		return err
	case !whole:
		return errShort
	}
	if time.Since(fi.ModTime()) < settleQuiet {
		return errUnsettled
	}
	return nil
}

// whole reports whether the file in place, id, is as long as its header says, or has
// a WAL or a journal: then SQLite has been at it, and knows best. Nothing of this
// capture has it open.
func (c *Capture) whole(id wal.FileID) (bool, error) {
	path, err := filepath.EvalSymlinks(c.cfg.Path) // SQLite names the WAL after that
	if err != nil {
		return false, err
	}
	for _, suffix := range []string{"-wal", "-journal"} {
		if fi, err := os.Stat(path + suffix); err == nil && fi.Size() > 0 {
			return true, nil
		}
	}
	whole, err := wal.Whole(path)
	return whole, errors.Join(err, c.closeIdle(id))
}
