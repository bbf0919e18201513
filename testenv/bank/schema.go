package bank

import (
	"context"
	"database/sql"
	"fmt"
)

// Config sizes the bank. It travels to child processes as JSON.
type Config struct {
	Accounts int `json:"accounts,omitempty"` // 0 means 256
	Pad      int `json:"pad,omitempty"`      // bytes of padding in each account row; 0 means 64
	Keep     int `json:"keep,omitempty"`     // newest transfer rows kept, and up to 31 more; 0 means 1000, negative means all
}

func (c Config) withDefaults() Config {
	if c.Accounts == 0 {
		c.Accounts = 256
	}
	if c.Pad == 0 {
		c.Pad = 64
	}
	if c.Keep == 0 {
		c.Keep = 1000
	}
	return c
}

const (
	opening    = 1000 // every account's first balance
	pruneEvery = 32   // transfers between two deletions of old rows, so that few transfers pay for it
)

// The trigger makes a transfer one statement, so that the application side is bounded by SQLite and not by the driver.
const schema = `
CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL, touched INTEGER NOT NULL, pad BLOB);
CREATE TABLE ledger(one INTEGER PRIMARY KEY CHECK(one=1), seq INTEGER NOT NULL, total INTEGER NOT NULL,
	touched INTEGER NOT NULL, accounts INTEGER NOT NULL);
CREATE TABLE transfer(seq INTEGER PRIMARY KEY, src INTEGER NOT NULL, dst INTEGER NOT NULL, amount INTEGER NOT NULL,
	at INTEGER NOT NULL, note BLOB);
CREATE TRIGGER transfer_moves_money AFTER INSERT ON transfer BEGIN
	UPDATE ledger SET seq = new.seq, touched = touched + 2*new.seq
		- (SELECT sum(a.touched) FROM account a WHERE a.id IN (new.src, new.dst));
	UPDATE account SET balance = balance + CASE id WHEN new.src THEN -new.amount ELSE new.amount END,
		touched = new.seq WHERE id IN (new.src, new.dst);
	%s
END;
`

// Create makes the tables and opens the accounts, in one transaction. A database that has a bank already is left as it is.
func Create(ctx context.Context, db *sql.DB, c Config) error {
	c = c.withDefaults()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("create bank: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it does nothing
	if exists, err := hasLedger(ctx, tx); err != nil || exists {
		return err
	}
	if err := create(ctx, tx, c); err != nil {
		return fmt.Errorf("create bank: %w", err)
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("create bank: %w", err)
	}
	return nil
}

func hasLedger(ctx context.Context, tx *sql.Tx) (bool, error) {
	var n int
	err := tx.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema WHERE name='ledger'").Scan(&n)
	if err != nil {
		return false, fmt.Errorf("look for bank: %w", err)
	}
	return n > 0, nil
}

func create(ctx context.Context, tx *sql.Tx, c Config) error {
	prune := "DELETE FROM transfer WHERE seq <= 0;"
	if c.Keep > 0 {
		prune = fmt.Sprintf("DELETE FROM transfer WHERE new.seq %% %d = 0 AND seq <= new.seq - %d;", pruneEvery, c.Keep)
	}
	if _, err := tx.ExecContext(ctx, fmt.Sprintf(schema, prune)); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i < ?1)
		INSERT INTO account SELECT i, ?2, 0, randomblob(?3) FROM n`, c.Accounts, opening, c.Pad)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "INSERT INTO ledger VALUES(1, 0, ?, 0, ?)", c.Accounts*opening, c.Accounts)
	return err
}
