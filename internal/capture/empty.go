package capture

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"github.com/ltxstream/ltxstream/internal/wal"
)

// Without us, the last close of the application deletes the WAL. The keeper
// prevents that, and frames that stay behind would be laid over whatever
// database file is put in place of this one. So the WAL is emptied once the
// application is gone, or has been idle for a moment.
const (
	emptyAlone = 20 * time.Millisecond // after the last frames, with nobody else there
	emptyIdle  = time.Second           // … with anybody there
	askEvery   = 20 * time.Millisecond // who is there
)

// emptyWanted reports whether it is time to empty the WAL of h.
func (c *Capture) emptyWanted(h wal.Header) bool {
	now := time.Now()
	idle := now.Sub(c.timing.frames)
	if !c.covers(h) || c.ckpt.busy || idle < emptyAlone || now.Before(c.timing.tryCkpt) {
		return false
	}
	if now.Sub(c.timing.alone) < askEvery {
		return false
	}
	c.timing.alone = now
	if size, err := c.db.WALSize(); err != nil || size == 0 {
		return false
	}
	alone, err := c.db.Alone()
	return idle >= emptyIdle || alone && err == nil
}

// empty backfills, restarts and truncates the WAL, as the last close would.
func (c *Capture) empty(ctx context.Context, h wal.Header) error {
	if h.MaxFrame == 0 {
		err := c.truncate()
		c.backOff(err == nil)
		return ignoreBusy(err)
	}
	if c.db.Backfilled() != h.MaxFrame {
		c.ckpt.begin(c.db) // its report is the time to go on
		return nil
	}
	done, err := c.restartWAL(ctx, c.db.TruncateWAL)
	c.backOff(done)
	return err
}

// truncate truncates a WAL that was restarted before.
func (c *Capture) truncate() error {
	if err := c.db.TryLock(wal.Write); err != nil {
		return err
	}
	err := c.db.TryLock(wal.Ckpt)
	if err == nil {
		if h, herr := c.db.Header(); herr != nil || h.MaxFrame == 0 {
			err = errors.Join(herr, c.db.TruncateWAL())
		}
		err = errors.Join(err, c.db.Unlock(wal.Ckpt))
	}
	return errors.Join(err, c.db.Unlock(wal.Write))
}

// dropStale removes the WAL that a replaced database file left behind, before
// SQLite lays it over the new one. Where somebody has the new file open that
// has happened already.
func (c *Capture) dropStale() error {
	if c.left.path == "" {
		return nil
	}
	now, err := wal.Identify(c.cfg.Path)
	if err != nil || now == c.left.db {
		return nil // absent, or another of the files was replaced: who opens it will say so
	}
	if left, err := wal.Identify(c.left.path); err != nil || left != c.left.wal {
		return nil
	}
	lock, err := wal.LockFile(c.cfg.Path)
	if errors.Is(err, wal.ErrBusy) {
		c.cfg.Logger.Error("database file was replaced beside the wal of the old one and is in use already: check its content", "path", c.cfg.Path)
		c.left.path = "" // said once
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Unlock()
	c.cfg.Logger.Warn("removing the wal of the replaced database file", "path", c.cfg.Path)
	return errors.Join(remove(c.left.path), remove(strings.TrimSuffix(c.left.path, "wal")+"shm"))
}

func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
