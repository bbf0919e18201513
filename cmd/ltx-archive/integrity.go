package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"

	_ "github.com/mattn/go-sqlite3" // the driver "sqlite3"
)

// integrity runs a checking pragma on a database that nobody else has open.
func integrity(ctx context.Context, path, pragma string) (err error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	dsn := url.URL{Scheme: "file", Path: abs, RawQuery: "mode=ro&immutable=1"}
	db, err := sql.Open("sqlite3", dsn.String())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var answer string
	if err := db.QueryRowContext(ctx, "PRAGMA "+pragma+"(1)").Scan(&answer); err != nil {
		return fmt.Errorf("%s: %w", pragma, err)
	}
	if answer != "ok" {
		return fmt.Errorf("%s: %s", pragma, answer)
	}
	return nil
}
