package sqlconn

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	sqlite3 "github.com/mattn/go-sqlite3"
)

// IsBusy reports whether err is SQLITE_BUSY in any of its extended forms, or SQLITE_LOCKED.
func IsBusy(err error) bool {
	e, ok := errors.AsType[sqlite3.Error](err)
	return ok && (e.Code == sqlite3.ErrBusy || e.Code == sqlite3.ErrLocked)
}

// CheckpointResult is the row that PRAGMA wal_checkpoint returns.
type CheckpointResult struct {
	Busy       bool  `json:"busy"`       // it could not do all its mode asks for
	Log        int64 `json:"log"`        // frames in the WAL
	Backfilled int64 `json:"backfilled"` // frames in the database file
}

// CheckpointModes are the modes of PRAGMA wal_checkpoint.
func CheckpointModes() []string { return []string{"PASSIVE", "FULL", "RESTART", "TRUNCATE"} }

// Querier is what a *sql.DB, *sql.Conn and *sql.Tx have in common here.
type Querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Checkpoint runs PRAGMA wal_checkpoint(mode). A checkpoint that met a lock is not an error: see CheckpointResult.Busy.
func Checkpoint(ctx context.Context, q Querier, mode string) (CheckpointResult, error) {
	var r CheckpointResult
	row := q.QueryRowContext(ctx, fmt.Sprintf("PRAGMA wal_checkpoint(%s)", mode))
	if err := row.Scan(&r.Busy, &r.Log, &r.Backfilled); err != nil {
		if IsBusy(err) {
			return CheckpointResult{Busy: true}, nil
		}
		return CheckpointResult{}, fmt.Errorf("checkpoint %s: %w", mode, err)
	}
	return r, nil
}
