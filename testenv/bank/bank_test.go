package bank

import (
	"database/sql"
	"errors"
	"path/filepath"
	"testing"

	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

func open(t *testing.T, c Config) *sql.DB {
	t.Helper()
	db, err := sqlconn.OpenOne(t.Context(), filepath.Join(t.TempDir(), "bank.db"), sqlconn.WAL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	for range 2 { // the second call must leave it alone
		if err := Create(t.Context(), db, c); err != nil {
			t.Fatal(err)
		}
	}
	return db
}

func transfer(t *testing.T, db *sql.DB, n int) {
	t.Helper()
	teller, err := NewTeller(t.Context(), db, 1, 20)
	if err != nil {
		t.Fatal(err)
	}
	defer teller.Close()
	for i := range n {
		seq, err := teller.Transfer(t.Context())
		if err != nil || seq != int64(i+1) {
			t.Fatalf("transfer %d: seq %d, %v", i+1, seq, err)
		}
	}
}

func TestEveryStateHoldsTheInvariant(t *testing.T) {
	t.Parallel()
	db := open(t, Config{Accounts: 10, Keep: 5})
	if s, err := Check(t.Context(), db); err != nil || s.Seq != 0 {
		t.Fatalf("a new bank: %+v, %v", s, err)
	}
	transfer(t, db, 50)
	s, err := Check(t.Context(), db)
	if err != nil || s.Seq != 50 || s.Total != 10*opening {
		t.Fatalf("%+v, %v", s, err)
	}
	var kept, moved int
	row := db.QueryRow("SELECT (SELECT count(*) FROM transfer), (SELECT count(*) FROM account WHERE balance <> ?)", opening)
	if err := row.Scan(&kept, &moved); err != nil || kept != 23 || moved == 0 {
		t.Fatalf("kept %d transfers, moved %d balances, %v", kept, moved, err)
	}
}

func TestWrongStatesAreFound(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]string{
		"a lost account update":  "UPDATE account SET balance = balance + 1 WHERE id = 3",
		"an old account page":    "UPDATE account SET touched = touched - 1 WHERE id = (SELECT min(id) FROM account WHERE touched > 1)",
		"money back in time":     "UPDATE account SET balance = balance + CASE id WHEN 1 THEN 1 ELSE -1 END, touched = 0 WHERE id IN (1, 2)",
		"an old ledger page":     "UPDATE ledger SET seq = seq - 1",
		"a missing transfer":     "DELETE FROM transfer WHERE seq = (SELECT max(seq) FROM transfer)",
		"a missing account":      "DELETE FROM account WHERE touched = 0 AND id > 200",
		"a transfer from beyond": "UPDATE transfer SET seq = seq + 1000",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := open(t, Config{})
			transfer(t, db, 100)
			if _, err := db.Exec(damage); err != nil {
				t.Fatal(err)
			}
			_, err := Check(t.Context(), db)
			if _, ok := errors.AsType[*InvariantError](err); !ok {
				t.Fatalf("got %v", err)
			}
		})
	}
}

func BenchmarkTransfer(b *testing.B) {
	db, err := sqlconn.OpenOne(b.Context(), filepath.Join(b.TempDir(), "bank.db"), sqlconn.WAL())
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	if err := Create(b.Context(), db, Config{}); err != nil {
		b.Fatal(err)
	}
	teller, err := NewTeller(b.Context(), db, 1, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer teller.Close()
	for b.Loop() {
		if _, err := teller.Transfer(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
