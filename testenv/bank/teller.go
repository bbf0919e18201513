package bank

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"time"
)

// insertSQL bumps the sequence and inserts in one statement, so that several tellers never take the same number.
const insertSQL = `INSERT INTO transfer(seq, src, dst, amount, at, note) SELECT seq+1, ?, ?, ?, ?, ? FROM ledger`

// Teller makes transfers on one handle. Not safe for concurrent use; several tellers, also in several processes, may
// work on the same bank.
type Teller struct {
	stmt     *sql.Stmt
	rng      *rand.Rand
	accounts int64
	note     []byte
}

// NewTeller prepares transfers with the given seed, each with noteBytes of random payload. The bank must exist.
func NewTeller(ctx context.Context, db *sql.DB, seed uint64, noteBytes int) (*Teller, error) {
	t := &Teller{rng: rand.New(rand.NewPCG(seed, 0x6261_6e6b)), note: make([]byte, noteBytes)}
	if err := db.QueryRowContext(ctx, "SELECT accounts FROM ledger").Scan(&t.accounts); err != nil {
		return nil, fmt.Errorf("read ledger: %w", err)
	}
	stmt, err := db.PrepareContext(ctx, insertSQL)
	if err != nil {
		return nil, fmt.Errorf("prepare transfer: %w", err)
	}
	t.stmt = stmt
	return t, nil
}

// Transfer commits one transfer and returns its sequence. When it fails, nothing happened (SQLITE_BUSY: try again).
func (t *Teller) Transfer(ctx context.Context) (seq int64, err error) {
	src := 1 + t.rng.Int64N(t.accounts)
	dst := 1 + (src+t.rng.Int64N(t.accounts-1))%t.accounts
	t.fillNote()
	// Without a Done channel the driver needs no goroutine per statement; one transfer is short enough to wait for.
	r, err := t.stmt.ExecContext(context.WithoutCancel(ctx), src, dst, 1+t.rng.Int64N(100), time.Now().UnixNano(), t.note)
	if err != nil {
		return 0, fmt.Errorf("transfer: %w", err)
	}
	return r.LastInsertId() // the rowid, which is the sequence
}

func (t *Teller) fillNote() {
	for i := 0; i < len(t.note); i += 8 {
		v := t.rng.Uint64()
		for j := i; j < min(i+8, len(t.note)); j++ {
			t.note[j] = byte(v >> (8 * (j - i)))
		}
	}
}

// Close releases the prepared statement.
func (t *Teller) Close() error { return t.stmt.Close() }
