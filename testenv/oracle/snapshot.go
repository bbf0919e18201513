package oracle

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	sqlite3 "github.com/mattn/go-sqlite3"
	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

const busyTimeout = 5 * time.Second // readers of a WAL database wait only for a recovery

// Snapshot is one database at one moment. Not safe for concurrent use.
type Snapshot struct {
	Path   string
	Header Header
	Schema []Object
	db     *sql.DB
	conn   *sql.Conn // inside a read transaction
}

// Header holds the values of the file header that are compared, and two that are not.
type Header struct {
	PageSize      uint32
	Encoding      string
	AutoVacuum    int64
	UserVersion   int64
	ApplicationID int64
	PageCount     uint32
	FreePages     int64 // told, not compared: the pages are
}

// Object is a row of sqlite_schema.
type Object struct {
	Type, Name, Table string
	Root              int64
	SQL               string
}

// Open takes a snapshot of the database at path, which stays readable and writable for everybody else. Close it.
func Open(ctx context.Context, path string) (*Snapshot, error) {
	db, err := sqlconn.OpenOne(ctx, path, sqlconn.Options{Mode: "ro", BusyTimeout: busyTimeout})
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", path, err)
	}
	s := &Snapshot{Path: path, db: db}
	if err := s.begin(ctx); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("snapshot %s: %w", path, err)
	}
	return s, nil
}

func (s *Snapshot) begin(ctx context.Context) (err error) {
	if s.conn, err = s.db.Conn(ctx); err != nil {
		return err
	}
	if _, err := s.conn.ExecContext(ctx, "BEGIN DEFERRED"); err != nil {
		return err
	}
	if s.Schema, err = s.readSchema(ctx); err != nil { // the first read fixes the snapshot
		return err
	}
	return s.readHeader(ctx)
}

// Close ends the read transaction and the connection.
func (s *Snapshot) Close() error {
	if s.conn != nil {
		_ = s.conn.Close()
	}
	return s.db.Close()
}

func (s *Snapshot) readHeader(ctx context.Context) error {
	h := &s.Header
	for pragma, dst := range map[string]any{
		"page_size": &h.PageSize, "encoding": &h.Encoding, "auto_vacuum": &h.AutoVacuum, "user_version": &h.UserVersion,
		"application_id": &h.ApplicationID, "page_count": &h.PageCount, "freelist_count": &h.FreePages,
	} {
		if err := s.conn.QueryRowContext(ctx, "PRAGMA "+pragma).Scan(dst); err != nil {
			return fmt.Errorf("read %s: %w", pragma, err)
		}
	}
	return nil
}

func (s *Snapshot) readSchema(ctx context.Context) ([]Object, error) {
	rows, err := s.conn.QueryContext(ctx, `SELECT type, name, tbl_name, coalesce(rootpage, 0), coalesce(sql, '')
		FROM sqlite_schema ORDER BY type, name`)
	if err != nil {
		return nil, fmt.Errorf("read schema: %w", err)
	}
	defer rows.Close()
	var objects []Object
	for rows.Next() {
		var o Object
		if err := rows.Scan(&o.Type, &o.Name, &o.Table, &o.Root, &o.SQL); err != nil {
			return nil, fmt.Errorf("read schema: %w", err)
		}
		objects = append(objects, o)
	}
	return objects, rows.Err()
}

// Image returns the bytes of all pages, as SQLite reads them in this snapshot. The lock page is zero.
func (s *Snapshot) Image(ctx context.Context) (image []byte, err error) {
	if s.Header.PageCount == 0 {
		return nil, nil
	}
	err = s.conn.Raw(func(c any) error {
		image, err = c.(*sqlite3.SQLiteConn).Serialize("main")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read pages of %s: %w", s.Path, err)
	}
	if want := int64(s.Header.PageCount) * int64(s.Header.PageSize); int64(len(image)) != want {
		return nil, fmt.Errorf("read pages of %s: %d bytes, want %d", s.Path, len(image), want)
	}
	return image, ctx.Err()
}

// Pages returns the checksum of each page, page 1 first, and that of the whole: what a position of this database carries.
func (s *Snapshot) Pages(ctx context.Context) ([]ltx.Checksum, ltx.Checksum, error) {
	image, err := s.Image(ctx)
	if err != nil {
		return nil, 0, err
	}
	size, lock := s.Header.PageSize, ltx.LockPgno(s.Header.PageSize)
	pages, all := make([]ltx.Checksum, s.Header.PageCount), ltx.ChecksumFlag
	for i := range pages {
		pgno := uint32(i) + 1
		if pgno == lock {
			continue
		}
		pages[i] = ltx.ChecksumPage(pgno, image[int(i)*int(size):][:size])
		all = ltx.ChecksumFlag | (all ^ pages[i])
	}
	return pages, all, nil
}

// Integrity runs integrity_check; nil means ok, an *IntegrityError lists what SQLite found.
func (s *Snapshot) Integrity(ctx context.Context) error {
	rows, err := s.conn.QueryContext(ctx, "PRAGMA integrity_check")
	if err != nil {
		return fmt.Errorf("check integrity of %s: %w", s.Path, err)
	}
	defer rows.Close()
	var found []string
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			return fmt.Errorf("check integrity of %s: %w", s.Path, err)
		}
		found = append(found, line)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("check integrity of %s: %w", s.Path, err)
	}
	if len(found) == 1 && found[0] == "ok" {
		return nil
	}
	return &IntegrityError{Path: s.Path, Found: found}
}

// IntegrityError says that SQLite itself finds a database damaged.
type IntegrityError struct {
	Path  string
	Found []string
}

func (e *IntegrityError) Error() string {
	return fmt.Sprintf("integrity of %s: %s", e.Path, strings.Join(e.Found, "; "))
}
