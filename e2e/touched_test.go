package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/bank"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

// TestReplicaWrittenToWhileDown: a plain program writes to the replica while no
// subscriber holds it. That is found before anything is applied, and the
// replica is seeded anew.
func TestReplicaWrittenToWhileDown(t *testing.T) {
	harm := map[string]struct {
		stmts []string
		copy  bool // undone: the old files are put back afterwards
		seeds bool // the replica must be seeded anew
	}{
		"a row":               {stmts: []string{"UPDATE account SET balance = balance + 1 WHERE id = 1"}, seeds: true},
		"a row, checkpointed": {stmts: []string{"UPDATE account SET balance = balance + 1 WHERE id = 1", "PRAGMA wal_checkpoint(TRUNCATE)"}, seeds: true},
		"vacuum":              {stmts: []string{"DELETE FROM transfer", "VACUUM"}, seeds: true},
		"rollback journal":    {stmts: []string{"PRAGMA journal_mode=DELETE", "UPDATE account SET balance = balance + 1 WHERE id = 1"}, seeds: true},
		"grown and shrunk":    {stmts: []string{"CREATE TABLE x(b)", "INSERT INTO x VALUES(zeroblob(100000))", "DROP TABLE x", "VACUUM"}, seeds: true},
		"only read":           {stmts: []string{"SELECT count(*) FROM account"}},
		"only checkpointed":   {stmts: []string{"PRAGMA wal_checkpoint(TRUNCATE)"}},
	}
	for name, h := range harm {
		for _, behind := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, behind %v", name, behind), func(t *testing.T) {
				t.Parallel()
				srv := testenv.Node(t)
				js := srv.JetStream()
				f := paths(t)
				_, teller := testenv.Bank(t, f.primary, sqlconn.WAL(), seed(t))
				p, _ := publish(t, js, appDB, f.primary)
				s, sr := replicate(t, js, appDB, f.replica)
				transfers(t, teller, 50)
				settle(t, p, s)
				sr.mustStop(t)
				stray := testenv.OpenDB(t, f.replica, sqlconn.Options{Mode: "rw"})
				for _, stmt := range h.stmts {
					if _, err := stray.Exec(stmt); err != nil {
						t.Fatalf("%s: %v", stmt, err)
					}
				}
				_ = stray.Close()
				if behind {
					transfers(t, teller, 50)
				}
				syncNow(t, p)
				s, _ = replicate(t, js, appDB, f.replica)
				equalAt(t, settle(t, p, s), f.primary, f.replica)
				transfers(t, teller, 20)
				equalAt(t, settle(t, p, s), f.primary, f.replica)
				full := s.Status().Files >= 1 && s.Status().Replica.FoundBy == ""
				t.Logf("found by %q, files %d, reseeds %d, full %v", s.Status().Replica.FoundBy, s.Status().Files, s.Status().Reseeds, full)
				if !h.seeds {
					expectNoReseed(t, s)
				}
			})
		}
	}
}

// TestReplicaFileTakenAway: the replica is removed, or another file is put in
// its place, while the subscriber runs. It is made anew.
func TestReplicaFileTakenAway(t *testing.T) {
	harm := map[string]func(t *testing.T, f files){
		"removed": func(t *testing.T, f files) {
			for _, suffix := range []string{"", "-wal", "-shm"} {
				if err := os.Remove(f.replica + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
					t.Fatal(err)
				}
			}
		},
		"database file alone removed": func(t *testing.T, f files) {
			if err := os.Remove(f.replica); err != nil {
				t.Fatal(err)
			}
		},
		"replaced by another database": func(t *testing.T, f files) {
			other := filepath.Join(f.dir, "other.db")
			db := testenv.OpenDB(t, other, sqlconn.Options{})
			if err := bank.Create(t.Context(), db, bank.Config{Accounts: 3}); err != nil {
				t.Fatal(err)
			}
			_ = db.Close()
			rename(t, other, f.replica)
		},
		"replaced by an old copy": func(t *testing.T, f files) {
			other := filepath.Join(f.dir, "other.db")
			copyDB(t, f.replica, other, 0, 0)
			rename(t, other, f.replica)
		},
	}
	for name, do := range harm {
		for _, idle := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, idle %v", name, idle), func(t *testing.T) {
				t.Parallel()
				srv := testenv.Node(t)
				js := srv.JetStream()
				f := paths(t)
				_, teller := testenv.Bank(t, f.primary, sqlconn.WAL(), seed(t))
				p, _ := publish(t, js, appDB, f.primary)
				s, _ := replicate(t, js, appDB, f.replica)
				transfers(t, teller, 50)
				settle(t, p, s)
				do(t, f)
				want := transfers(t, teller, 1)
				testenv.Until(t, patience, "a new replica", func() error {
					if !idle {
						want = transfers(t, teller, 1)
						syncNow(t, p)
					}
					if _, err := os.Stat(f.replica); err != nil {
						return err
					}
					got, err := lastSeq(t, f.replica)
					if err == nil && (got < want-1 || idle && got != want) {
						err = fmt.Errorf("replica at %d, want %d: %+v", got, want, s.Status())
					}
					return err
				})
				transfers(t, teller, 20)
				equalAt(t, settle(t, p, s), f.primary, f.replica)
			})
		}
	}
}
