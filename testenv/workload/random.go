package workload

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

// Config sizes the workload. It travels to child processes as JSON.
type Config struct {
	Seed          uint64 `json:"seed"`
	MaxBlob       int    `json:"max_blob"`   // bytes; 0 means 20,000
	MaxTables     int    `json:"max_tables"` // 0 means 6
	MaxRows       int    `json:"max_rows"`   // a table beyond it loses half its rows; 0 means 2,000
	NoVacuum      bool   `json:"no_vacuum"`
	NoCheckpoints bool   `json:"no_checkpoints"`
}

// Report counts what a workload did.
type Report struct {
	Commits     int64            `json:"commits"` // transactions that were committed; a VACUUM is one
	RolledBack  int64            `json:"rolled_back"`
	Savepoints  int64            `json:"savepoints"` // rolled back inside a transaction
	Checkpoints int64            `json:"checkpoints"`
	Busy        int64            `json:"busy"`
	Statements  map[string]int64 `json:"statements"` // by kind
}

// Random is a workload in progress. Not safe for concurrent use.
type Random struct {
	cfg    Config
	rng    *rand.Rand
	tables []table
	next   int // number of the next table or index
	rep    Report
}

// table is what the workload knows of a table of its own.
type table struct {
	name         string
	withoutRowid bool
	extra        int // columns added
	indexes      []string
}

// New returns a workload that has not begun.
func New(cfg Config) *Random {
	cfg.MaxBlob = orDefault(cfg.MaxBlob, 20_000)
	cfg.MaxTables = orDefault(cfg.MaxTables, 6)
	cfg.MaxRows = orDefault(cfg.MaxRows, 2_000)
	return &Random{
		cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 0x776f_726b)), next: 1,
		rep: Report{Statements: map[string]int64{}},
	}
}

func orDefault(v, def int) int {
	if v == 0 {
		return def
	}
	return v
}

// Run makes n more transactions on one connection of db, or goes on until ctx ends when n is 0 (that is no error then). It
// reports the totals of the workload. The statement under way is finished after the end of ctx.
func (r *Random) Run(ctx context.Context, db *sql.DB, n int) (Report, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return r.rep, fmt.Errorf("run workload: %w", err)
	}
	defer conn.Close()
	plain := context.WithoutCancel(ctx)
	for i := 0; (n == 0 || i < n) && ctx.Err() == nil; i++ {
		if err := r.step(plain, conn); err != nil {
			return r.rep, fmt.Errorf("run workload with seed %d: transaction %d: %w", r.cfg.Seed, i+1, err)
		}
	}
	if n > 0 {
		return r.rep, context.Cause(ctx)
	}
	return r.rep, nil
}

// step is one transaction, or one of the statements that must stand alone.
func (r *Random) step(ctx context.Context, conn *sql.Conn) error {
	switch p := r.rng.IntN(100); {
	case p < 2 && !r.cfg.NoVacuum:
		return r.alone(ctx, conn, "vacuum", "VACUUM")
	case p < 5 && !r.cfg.NoVacuum:
		return r.alone(ctx, conn, "incremental_vacuum", fmt.Sprintf("PRAGMA incremental_vacuum(%d)", r.rng.IntN(50)))
	case p < 11 && !r.cfg.NoCheckpoints:
		return r.checkpoint(ctx, conn)
	default:
		return r.transaction(ctx, conn)
	}
}

func (r *Random) alone(ctx context.Context, conn *sql.Conn, kind, stmt string) error {
	err := r.exec(ctx, conn, kind, stmt)
	if err == nil {
		r.rep.Commits++
	}
	return r.forgiveBusy(err)
}

func (r *Random) checkpoint(ctx context.Context, conn *sql.Conn) error {
	modes := sqlconn.CheckpointModes()
	res, err := sqlconn.Checkpoint(ctx, conn, modes[r.rng.IntN(len(modes))])
	r.rep.Checkpoints++
	if res.Busy {
		r.rep.Busy++
	}
	return err
}

// transaction runs a few random statements. What the workload knows of its tables follows the outcome.
func (r *Random) transaction(ctx context.Context, conn *sql.Conn) error {
	if _, err := conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return r.forgiveBusy(err)
	}
	before := r.remember()
	if err := r.body(ctx, conn); err != nil {
		_, _ = conn.ExecContext(ctx, "ROLLBACK")
		r.tables = before
		return r.forgiveBusy(err)
	}
	if r.rng.IntN(10) == 0 {
		r.tables = before
		r.rep.RolledBack++
		_, err := conn.ExecContext(ctx, "ROLLBACK")
		return err
	}
	if _, err := conn.ExecContext(ctx, "COMMIT"); err != nil {
		_, _ = conn.ExecContext(ctx, "ROLLBACK")
		r.tables = before
		return r.forgiveBusy(err)
	}
	r.rep.Commits++
	return nil
}

func (r *Random) body(ctx context.Context, conn *sql.Conn) error {
	for range 1 + r.rng.IntN(5) {
		if r.rng.IntN(5) == 0 {
			if err := r.savepoint(ctx, conn); err != nil {
				return err
			}
			continue
		}
		if err := r.statement(ctx, conn); err != nil {
			return err
		}
	}
	return nil
}

// savepoint runs statements whose pages reach the cache, perhaps the WAL, and are then taken back.
func (r *Random) savepoint(ctx context.Context, conn *sql.Conn) error {
	if _, err := conn.ExecContext(ctx, "SAVEPOINT s"); err != nil {
		return err
	}
	before := r.remember()
	for range 1 + r.rng.IntN(3) {
		if err := r.statement(ctx, conn); err != nil {
			return err
		}
	}
	if r.rng.IntN(2) == 0 {
		r.tables = before
		r.rep.Savepoints++
		if _, err := conn.ExecContext(ctx, "ROLLBACK TO s"); err != nil {
			return err
		}
	}
	_, err := conn.ExecContext(ctx, "RELEASE s")
	return err
}

func (r *Random) remember() []table {
	tables := slices.Clone(r.tables)
	for i := range tables {
		tables[i].indexes = slices.Clone(tables[i].indexes)
	}
	return tables
}

func (r *Random) exec(ctx context.Context, conn *sql.Conn, kind, stmt string, args ...any) error {
	if _, err := conn.ExecContext(ctx, stmt, args...); err != nil {
		return fmt.Errorf("%s: %q: %w", kind, stmt, err)
	}
	r.rep.Statements[kind]++
	return nil
}

func (r *Random) forgiveBusy(err error) error {
	if sqlconn.IsBusy(err) {
		r.rep.Busy++
		return nil
	}
	return err
}
