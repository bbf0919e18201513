package keeper

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/mattn/go-sqlite3"
	"golang.org/x/sys/unix"
)

// Errors that callers tell apart. Each is wrapped with the path and a hint.
var (
	ErrNotDatabase = errors.New("not a SQLite database")
	ErrExclusive   = errors.New("database is held exclusively by another connection")
	ErrReadOnly    = errors.New("database cannot be written")
	ErrNotWAL      = errors.New("database cannot be in WAL mode")
)

const (
	busyTimeout = 5 * time.Second
	switchPause = 2 * time.Millisecond // between attempts to switch to WAL
)

// Keeper is an open connection. It is safe for concurrent use.
type Keeper struct {
	switched bool
	mu       struct {
		sync.Mutex
		conn *sqlite3.SQLiteConn // of the driver itself: a pool would close and reopen it, and costs a goroutine
	}
}

// Open opens the existing database at path for reading and writing and puts it
// into WAL mode if it is not (see Switched). An absent file is fs.ErrNotExist.
// It waits up to 5 s for a lock.
func Open(ctx context.Context, path string) (*Keeper, error) {
	if err := inspect(path); err != nil {
		return nil, err
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	u := url.URL{Scheme: "file", Path: abs, RawQuery: fmt.Sprintf("mode=rw&_busy_timeout=%d&_cache_size=2", busyTimeout.Milliseconds())}
	k := &Keeper{}
	if err := k.connect(ctx, path, u.String()); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, explain(err)), k.Close())
	}
	return k, nil
}

func (k *Keeper) connect(ctx context.Context, path, dsn string) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	conn, err := (&sqlite3.SQLiteDriver{}).Open(dsn)
	if err != nil {
		return err
	}
	k.mu.conn = conn.(*sqlite3.SQLiteConn)
	if err := k.enterWAL(ctx); err != nil {
		return err
	}
	target, err := filepath.EvalSymlinks(path) // SQLite names its files after that
	if err != nil {
		return err
	}
	return errors.Join(writable(target+"-wal"), writable(target+"-shm"))
}

// Switched reports whether Open changed the journal mode to WAL.
func (k *Keeper) Switched() bool { return k.switched }

// Close closes the connection, and with it SQLite's locks of this process on
// the database. Close whatever else reads the files first.
func (k *Keeper) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.mu.conn == nil {
		return nil
	}
	return k.mu.conn.Close()
}

// Touch reads from the database once, by which SQLite recovers a wal-index that
// needs it.
func (k *Keeper) Touch(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.read(ctx); err != nil {
		return fmt.Errorf("read database: %w", explain(err))
	}
	return nil
}

// enterWAL puts the database into WAL mode and opens the WAL and the wal-index.
// k.mu is held.
func (k *Keeper) enterWAL(ctx context.Context) error {
	before, err := k.query(ctx, "PRAGMA journal_mode")
	if err != nil {
		return err
	}
	after, err := k.switchToWAL(ctx)
	if err != nil {
		return err
	}
	if !strings.EqualFold(after, "wal") {
		return fmt.Errorf("journal mode stays %q: %w", after, ErrNotWAL)
	}
	k.switched = !strings.EqualFold(before, "wal")
	if _, err := k.mu.conn.ExecContext(ctx, "PRAGMA wal_autocheckpoint=0", nil); err != nil {
		return err
	}
	return k.read(ctx)
}

// read reads from the database once; the first time opens the WAL and the
// wal-index. Then it lets go of what SQLite remembers of the database, the parsed
// schema and 20 page buffers, for which a keeper has no use. k.mu is held.
func (k *Keeper) read(ctx context.Context) error {
	if _, err := k.query(ctx, "SELECT count(*) FROM (SELECT 1 FROM sqlite_schema LIMIT 1)"); err != nil {
		return err
	}
	_, err := k.mu.conn.ExecContext(ctx, "PRAGMA writable_schema=RESET; PRAGMA shrink_memory", nil)
	return err
}

// query returns the first column of the first row. k.mu is held.
func (k *Keeper) query(ctx context.Context, stmt string) (string, error) {
	rows, err := k.mu.conn.QueryContext(ctx, stmt, nil)
	if err != nil {
		return "", err
	}
	row := make([]driver.Value, len(rows.Columns()))
	if err := rows.Next(row); err != nil {
		return "", errors.Join(err, rows.Close())
	}
	return fmt.Sprint(row[0]), rows.Close()
}

// switchToWAL tries again where SQLite does not: it takes the lock out of a read
// transaction, where its busy timeout does not count, so that one commit of an
// application in rollback-journal mode is enough to refuse it. k.mu is held.
func (k *Keeper) switchToWAL(ctx context.Context) (string, error) {
	for deadline := time.Now().Add(busyTimeout); ; {
		mode, err := k.query(ctx, "PRAGMA journal_mode=WAL")
		se, ok := errors.AsType[sqlite3.Error](err)
		if !ok || se.Code != sqlite3.ErrBusy || !time.Now().Before(deadline) {
			return mode, err
		}
		select {
		case <-time.After(switchPause):
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

// inspect refuses what SQLite would refuse late or with a poor message.
func inspect(path string) error {
	fi, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("open %s: %w", path, fs.ErrNotExist)
	}
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	if !fi.Mode().IsRegular() {
		return fmt.Errorf("open %s: not a regular file: %w", path, ErrNotDatabase)
	}
	if err := writable(path); err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	return nil
}

// writable refuses a file that SQLite would open read-only without a word.
func writable(path string) error {
	if err := unix.Faccessat(unix.AT_FDCWD, path, unix.W_OK, unix.AT_EACCESS); err != nil {
		return fmt.Errorf("%w: write to %s: %w", ErrReadOnly, path, err)
	}
	return nil
}

func explain(err error) error {
	se, ok := errors.AsType[sqlite3.Error](err)
	if !ok {
		return err
	}
	switch se.Code {
	case sqlite3.ErrBusy, sqlite3.ErrLocked:
		return fmt.Errorf("%w (PRAGMA locking_mode=EXCLUSIVE, or a long transaction in rollback-journal mode): %w", ErrExclusive, err)
	case sqlite3.ErrNotADB:
		return fmt.Errorf("%w (an encrypted database, or another kind of file): %w", ErrNotDatabase, err)
	case sqlite3.ErrReadonly, sqlite3.ErrCantOpen, sqlite3.ErrPerm:
		return fmt.Errorf("%w: the file and its directory must be writable: %w", ErrReadOnly, err)
	}
	return err
}

// PersistWAL lets Close leave the -wal file in place even when this is the last
// connection: what is known about its last frame stays true.
func (k *Keeper) PersistWAL() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.mu.conn.SetFileControlInt("main", sqlite3.SQLITE_FCNTL_PERSIST_WAL, 1); err != nil {
		return fmt.Errorf("persist wal: %w", err)
	}
	return nil
}
