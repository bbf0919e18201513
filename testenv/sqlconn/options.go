package sqlconn

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"
	"time"

	sqlite3 "github.com/mattn/go-sqlite3"
)

// Options are the settings of a connection. They travel to child processes as JSON.
type Options struct {
	Mode           string        `json:"mode,omitempty"`            // "ro", "rw" or "rwc"; "" means "rwc"
	Journal        string        `json:"journal,omitempty"`         // journal_mode to set, for example "wal"; "" leaves it
	PageSize       int           `json:"page_size,omitempty"`       // of a new database; 0 means SQLite's default
	AutoVacuum     int           `json:"auto_vacuum,omitempty"`     // of a new database: 0 none, 1 full, 2 incremental
	Synchronous    string        `json:"synchronous,omitempty"`     // "off", "normal", "full", "extra"; "" means "normal"
	AutoCheckpoint int           `json:"auto_checkpoint,omitempty"` // pages; 0 means SQLite's default (1000), -1 means never
	BusyTimeout    time.Duration `json:"busy_timeout,omitempty"`    // 0 means: fail at once with SQLITE_BUSY
	MMap           int64         `json:"mmap,omitempty"`            // mmap_size in bytes
	CacheKiB       int           `json:"cache_kib,omitempty"`       // 0 means SQLite's default
	Exclusive      bool          `json:"exclusive,omitempty"`       // locking_mode=EXCLUSIVE
	Pragmas        []string      `json:"pragmas,omitempty"`         // further statements, run last on each connection
}

// WAL returns the options of an ordinary application: WAL, synchronous=NORMAL, 10 s busy timeout.
func WAL() Options {
	return Options{Journal: "wal", BusyTimeout: 10 * time.Second}
}

// Open returns a pool of connections to path, each set up as o says. Nothing is opened before the first use.
func Open(path string, o Options) (*sql.DB, error) {
	dsn, err := o.dsn(path)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(connector{dsn: dsn, drv: &sqlite3.SQLiteDriver{ConnectHook: o.apply}}), nil
}

// OpenOne is Open with a single connection in the pool, opened before it returns.
func OpenOne(ctx context.Context, path string, o Options) (*sql.DB, error) {
	db, err := Open(path, o)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	if err := db.PingContext(ctx); err != nil {
		_ = db.Close()
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return db, nil
}

func (o Options) dsn(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("open %s: %w", path, err)
	}
	q := url.Values{}
	q.Set("_busy_timeout", strconv.FormatInt(o.BusyTimeout.Milliseconds(), 10))
	q.Set("_txlock", "immediate")
	if o.Mode != "" {
		q.Set("mode", o.Mode)
	}
	return (&url.URL{Scheme: "file", Path: abs, RawQuery: q.Encode()}).String(), nil
}

// apply runs the settings in the order that SQLite needs: the page size and auto_vacuum of a new file come before
// anything that writes it.
func (o Options) apply(c *sqlite3.SQLiteConn) error {
	for _, stmt := range o.statements() {
		if _, err := c.Exec(stmt, nil); err != nil {
			return fmt.Errorf("run %q: %w", stmt, err)
		}
	}
	return nil
}

func (o Options) statements() []string {
	var s []string
	add := func(on bool, format string, arg any) {
		if on {
			s = append(s, fmt.Sprintf(format, arg))
		}
	}
	add(o.Exclusive, "PRAGMA locking_mode=%s", "exclusive")
	add(o.PageSize != 0, "PRAGMA page_size=%d", o.PageSize)
	add(o.AutoVacuum != 0, "PRAGMA auto_vacuum=%d", o.AutoVacuum)
	add(o.Journal != "", "PRAGMA journal_mode=%s", o.Journal)
	add(true, "PRAGMA synchronous=%s", orDefault(o.Synchronous, "normal"))
	add(o.AutoCheckpoint != 0, "PRAGMA wal_autocheckpoint=%d", max(o.AutoCheckpoint, 0))
	add(true, "PRAGMA mmap_size=%d", o.MMap)
	add(o.CacheKiB != 0, "PRAGMA cache_size=-%d", o.CacheKiB)
	return append(s, o.Pragmas...)
}

func orDefault(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

// connector is a driver.Connector of its own, so that no driver needs to be registered under a global name.
type connector struct {
	dsn string
	drv *sqlite3.SQLiteDriver
}

func (c connector) Connect(context.Context) (driver.Conn, error) { return c.drv.Open(c.dsn) }
func (c connector) Driver() driver.Driver                        { return c.drv }
