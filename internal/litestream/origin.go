package litestream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/compactor"
	"github.com/ltxstream/ltxstream/objstore/levels"
)

// Why an archive cannot be continued.
var (
	// ErrRunning: Litestream still runs, or somebody else writes the archive.
	ErrRunning = errors.New("litestream still runs")
	// ErrEmpty: there is no LTX file of the database.
	ErrEmpty = errors.New("no LTX files of the database")
	// ErrGenerations: the archive is one of Litestream 0.3, which counts
	// generations and no TXIDs.
	ErrGenerations = errors.New("an archive of Litestream 0.3")
)

// Origin is the archive of a database that Litestream wrote. Archive and Names are
// required.
type Origin struct {
	Archive *levels.Archive
	// Names are those under which the database is looked for, the first that has
	// any file is it: levels.Root, or that of a folder.
	Names  []string
	Path   string       // of the database file; "": who has it open is not asked
	Logger *slog.Logger // default slog.Default()
}

const (
	// quiet is how long ago the newest file of an archive must have been written
	// so that its writer counts as stopped without a second look.
	quiet = 10 * time.Second
	// again is how long it takes until the second look: three times what
	// Litestream waits between two uploads.
	again = 3 * time.Second
)

// End returns the newest TXID of all levels: the next one is free. It lists the
// archive once, twice with a pause of 3 seconds where its newest file is younger
// than 10 seconds. A Litestream that writes less often, or on another machine
// begins to write afterwards, is not seen. Errors: ErrRunning, ErrEmpty,
// ErrGenerations, those of the storage.
func (o Origin) End(ctx context.Context) (ltx.TXID, error) {
	if err := o.stopped(); err != nil {
		return 0, err
	}
	db, end, err := o.find(ctx)
	if err != nil {
		return 0, err
	}
	busy, err := o.busy(ctx, db, end)
	if !busy || err != nil {
		return end.Max, err
	}
	select {
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	case <-time.After(again):
	}
	_, now, err := o.find(ctx)
	if err == nil && now.Max != end.Max {
		err = fmt.Errorf("%s grew from TXID %s to %s while it was looked at: %w", o.Archive, end.Max, now.Max, ErrRunning)
	}
	return now.Max, err
}

// stopped asks the processes of this machine.
func (o Origin) stopped() error {
	if o.Path == "" {
		return nil
	}
	pids, unknown, err := processes(o.Path)
	switch {
	case err != nil:
		return err
	case len(pids) > 0:
		return fmt.Errorf("process %d has %s open: %w", pids[0], o.Path, ErrRunning)
	case len(unknown) > 0:
		o.logger().Warn("a process called litestream runs as another user: whether it still replicates this database cannot be told", "pid", unknown[0], "path", o.Path)
	}
	return nil
}

func (o Origin) logger() *slog.Logger {
	if o.Logger == nil {
		return slog.Default()
	}
	return o.Logger
}

// find returns the newest file, and the name under which it is.
func (o Origin) find(ctx context.Context) (db string, end levels.File, err error) {
	for _, db := range o.Names {
		inv, err := compactor.ReadInventory(ctx, o.Archive, db)
		if err != nil {
			return "", end, err
		}
		if end := inv.End(); end.Max > 0 {
			return db, end, nil
		}
	}
	return "", end, o.nothing(ctx)
}

// nothing says why there is no file.
func (o Origin) nothing(ctx context.Context) error {
	for _, db := range o.Names {
		for _, err := range o.Archive.Store().List(ctx, levels.Folder(db)+"generations/", "") {
			if err != nil {
				return err
			}
			return fmt.Errorf("%s: %w", o.Archive, ErrGenerations)
		}
	}
	return fmt.Errorf("%s: %w, as %s", o.Archive, ErrEmpty, strings.Join(o.Names, " or "))
}

// busy reports whether the newest file is so young that a Litestream may be at
// work. A file of ours is none of its business: it bears a checksum of the
// database.
func (o Origin) busy(ctx context.Context, db string, end levels.File) (bool, error) {
	post, err := compactor.PostOf(ctx, o.Archive, db, end)
	if err != nil || post != 0 {
		return false, err
	}
	end, err = o.Archive.StampedByHeader(ctx, db, end)
	return time.Since(end.Timestamp) < quiet, err
}
