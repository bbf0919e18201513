package capture

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/ltxstream/ltxstream/internal/keeper"
	"github.com/ltxstream/ltxstream/internal/wal"
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
	c.db.OnSync(func() { c.cfg.Crash("sync") })
	path, err := filepath.EvalSymlinks(c.cfg.Path) // SQLite names the WAL after that
	if err != nil {
		return fmt.Errorf("open %s: %w", c.cfg.Path, err)
	}
	c.walPath = path + "-wal"
	c.dbID, _ = c.db.IDs()
	c.walID, err = wal.Identify(c.walPath)
	return err
}

// closePrimary closes what openPrimary opened, the keeper last.
func (c *Capture) closePrimary() error {
	var errs []error
	if c.db != nil {
		errs = append(errs, c.db.Close())
	}
	if c.keeper != nil {
		errs = append(errs, c.keeper.Close())
	}
	c.primary = primary{held: held{added: c.held.added, gone: c.held.gone}} // the comparison captures the rest
	return errors.Join(errs...)
}

// closeIdle closes the descriptors that are left of files which nobody in this
// process has open, where that can be known.
func (c *Capture) closeIdle(ids ...wal.FileID) error {
	if !c.cfg.SoleOwner {
		return nil
	}
	var errs []error
	for _, id := range ids {
		errs = append(errs, wal.CloseIdle(id))
	}
	return errors.Join(errs...)
}

// reopen follows the name of the database to the file that it now leads to.
func (c *Capture) reopen(ctx context.Context) error {
	if c.db != nil {
		c.cfg.Logger.Warn("database file was replaced", "path", c.cfg.Path)
		c.unwatch()
	}
	c.unsure = true
	if c.db != nil {
		_, shm := c.db.IDs()
		c.left = remains{db: c.dbID, shm: shm, wal: c.walID, path: c.walPath}
	}
	if err := c.closePrimary(); err != nil {
		return fmt.Errorf("close replaced database: %w", err)
	}
	if err := c.dropStale(); err != nil {
		return fmt.Errorf("remove wal of replaced database: %w", err)
	}
	if err := c.awaitSettled(); err != nil {
		return err
	}
	if err := c.openPrimary(ctx); err != nil {
		return errors.Join(err, c.closePrimary())
	}
	c.watch()
	return c.forget()
}

// forget closes what is left of the files that were replaced. Until then they are
// kept open: the file system would give their numbers to others.
func (c *Capture) forget() error {
	db, shm := c.db.IDs()
	left := []wal.FileID{c.left.db, c.left.shm}
	c.left = remains{}
	return c.closeIdle(slices.DeleteFunc(left, func(id wal.FileID) bool { return id == db || id == shm })...)
}

// watch has the -wal file and the database file watched.
func (c *Capture) watch() {
	c.hot, c.watched = false, true
	for _, path := range []string{c.walPath, c.cfg.Path} {
		if err := c.notifier.watch(path, c.wake); err != nil {
			c.cfg.Logger.Warn("file changes are not notified, polling only", "path", path, "err", err)
			c.watched = false
		}
	}
}

func (c *Capture) unwatch() {
	c.notifier.unwatch(c.walPath)
	c.notifier.unwatch(c.cfg.Path)
}

// heat stops the notices of a -wal file that is written to all the time, which
// cost its writers a good part of their throughput: polling costs them nothing.
// They begin again when there is a pause.
func (c *Capture) heat(commits int) {
	switch {
	case !c.hot && commits >= hotGroup:
		c.hot = true
		c.notifier.unwatch(c.walPath)
	case c.hot && commits < coolGroup:
		c.watch()
	}
}

func (c *Capture) cool() {
	if c.hot && time.Since(c.timing.frames) > coolAfter {
		c.watch()
		poke(c.wake) // what came before the watch gave no notice
	}
}

// pin pins the WAL, waiting up to 5 s for readers to let go of a slot.
func (c *Capture) pin(ctx context.Context) error {
	deadline := time.Now().Add(5 * time.Second)
	for {
		err := c.db.Pin()
		if err == nil || !errors.Is(err, wal.ErrBusy) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Millisecond):
		}
	}
}
