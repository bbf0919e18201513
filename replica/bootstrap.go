package replica

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	_ "github.com/mattn/go-sqlite3" // the driver that makes an empty file a database

	"github.com/ltxstream/ltxstream/internal/atomicfile"
	"github.com/ltxstream/ltxstream/internal/wal"
)

// bootstrap applies a full file where there is no database yet, or one with
// another page size. The file's header was read.
func (r *Replica) bootstrap(ctx context.Context, info ApplyInfo) error {
	there, err := exists(r.path)
	if err != nil {
		return err
	}
	if there && r.live.live == nil {
		if n, err := sizeOf(r.path); err != nil || n == 0 {
			return errors.Join(err, r.fillEmpty(ctx, info))
		}
		return fmt.Errorf("%s appeared: %w", r.path, ErrMoved)
	}
	if err := r.writeTemp(ctx); err != nil {
		return errors.Join(err, removeIfThere(r.tempPath()))
	}
	r.cfg.crash("bootstrap written")
	pos, err := info.position(&r.apply.changes)
	if err != nil {
		return errors.Join(err, removeIfThere(r.tempPath()))
	}
	if there {
		err = r.replace(ctx, pos)
	} else {
		err = r.install(linkOrRename, pos)
	}
	if err := errors.Join(err, removeIfThere(r.tempPath())); err != nil {
		return err
	}
	r.cfg.crash("bootstrap renamed")
	return r.openInstalled(ctx)
}

func exists(path string) (bool, error) {
	_, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// writeTemp writes the database of the full file into a file beside the
// replica, verified and durable.
func (r *Replica) writeTemp(ctx context.Context) error {
	f, err := os.OpenFile(r.tempPath(), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	c := &r.apply.changes
	w := &pageWriter{f: f, size: int64(r.apply.scan.Header().PageSize)}
	err = c.read(&r.apply.scan, false, func(i int, page []byte) error {
		if i&1023 == 1023 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return w.put(c.pages[i].Pgno, page)
	})
	if err == nil {
		err = r.verifyFull(c)
	}
	if err == nil {
		err = w.finish(c.header.Commit)
	}
	return errors.Join(err, f.Close())
}

// pageWriter writes pages in page order, neighbours together.
type pageWriter struct {
	f    *os.File
	size int64
	buf  []byte
	at   int64 // offset in f of buf
}

const writeChunk = 1 << 20

func (w *pageWriter) put(pgno uint32, page []byte) error {
	off := int64(pgno-1) * w.size
	if off != w.at+int64(len(w.buf)) || len(w.buf) >= writeChunk {
		if err := w.flush(); err != nil {
			return err
		}
		w.at = off
	}
	w.buf = append(w.buf, page...)
	return nil
}

func (w *pageWriter) flush() error {
	_, err := w.f.WriteAt(w.buf, w.at)
	w.buf = w.buf[:0]
	return err
}

// finish writes what is left, gives the file its size (its last page may be the
// lock page) and syncs it.
func (w *pageWriter) finish(pages uint32) error {
	if err := w.flush(); err != nil {
		return err
	}
	if err := w.f.Truncate(int64(pages) * w.size); err != nil {
		return err
	}
	return w.f.Sync()
}

// install puts the temporary file in place by put. The
// journal gets its position first, without a place in a WAL: the content itself
// proves it. A -wal file left over from another database must not survive.
func (r *Replica) install(put func(from, to string) error, pos Position) error {
	c := &r.apply.changes
	e := entry{PageSize: c.header.PageSize, PageCount: c.header.Commit, Pos: pos}
	if err := r.apply.journal.append(e); err != nil {
		return err
	}
	if err := r.apply.journal.sync(); err != nil {
		return err
	}
	for _, suffix := range []string{"-wal", "-shm", "-journal"} {
		if err := removeIfThere(r.path + suffix); err != nil {
			return err
		}
	}
	if err := put(r.tempPath(), r.path); err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(r.path))
}

// linkOrRename moves a file to a name that nobody must have taken meanwhile,
// where the file system can tell.
func linkOrRename(from, to string) error {
	err := os.Link(from, to)
	if err == nil || errors.Is(err, os.ErrExist) {
		return err
	}
	return os.Rename(from, to)
}

// openInstalled opens the database just put in place. Its content is compared
// like that of any other: it must prove the position that the journal got.
func (r *Replica) openInstalled(ctx context.Context) error {
	if err := r.goLive(ctx); err != nil {
		return err
	}
	if lost := r.Lost(); lost != nil {
		return fmt.Errorf("open new replica: %w", lost)
	}
	return nil
}

// replace puts the temporary file in the place of a database with another page
// size, while nobody has that open: SQLite's own EXCLUSIVE lock says so, since
// every connection in WAL mode holds SHARED. A connection that never read yet
// goes unseen; the old file stays locked, so that it never will.
func (r *Replica) replace(ctx context.Context, pos Position) error {
	if err := r.live.settle(ctx); err != nil {
		return err
	}
	if err := r.takeDown(); err != nil {
		return err
	}
	if err := r.replaceLocked(pos); err != nil {
		return errors.Join(err, r.goLive(ctx))
	}
	return nil
}

// settle copies all of the WAL into the database file, which is then complete
// without it, whatever happens between two steps of replacing it.
func (l *live) settle(ctx context.Context) error {
	if err := l.db.LockWithin(ctx, wal.Ckpt, ckptWait); err != nil {
		return fmt.Errorf("%w: %w", ErrPageSize, err)
	}
	defer l.db.Unlock(wal.Ckpt)
	res, err := l.db.Backfill(ctx)
	if err == nil && !res.Done() {
		err = fmt.Errorf("%w: a reader is inside a transaction", ErrPageSize)
	}
	return err
}

func (r *Replica) replaceLocked(pos Position) error {
	lock, err := wal.LockFile(r.path)
	if errors.Is(err, wal.ErrBusy) {
		return fmt.Errorf("%w: close every connection to %s, or wait until the readers did: %w", ErrPageSize, r.path, err)
	}
	if err != nil {
		return err
	}
	if err := r.install(os.Rename, pos); err != nil {
		return errors.Join(err, lock.Unlock())
	}
	return lock.Abandon()
}

// fillEmpty makes the empty file a database and applies the full file to it as
// a transaction: somebody may have the empty file open, so another file in its
// place would leave them behind.
func (r *Replica) fillEmpty(ctx context.Context, info ApplyInfo) error {
	if err := makeDatabase(ctx, r.path, r.apply.scan.Header().PageSize); err != nil {
		return err
	}
	if err := r.goLive(ctx); err != nil {
		return err
	}
	return r.applyLive(ctx, info)
}

// makeDatabase turns an empty file into an empty database in WAL mode.
func makeDatabase(ctx context.Context, path string, pageSize uint32) error {
	abs, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	u := url.URL{Scheme: "file", Path: abs, RawQuery: "mode=rw&_busy_timeout=5000"}
	db, err := sql.Open("sqlite3", u.String())
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	for _, stmt := range []string{fmt.Sprintf("PRAGMA page_size=%d", pageSize), "PRAGMA journal_mode=WAL"} {
		if _, err := db.ExecContext(ctx, stmt); err != nil {
			return errors.Join(fmt.Errorf("make database: %w", err), db.Close())
		}
	}
	return db.Close()
}
