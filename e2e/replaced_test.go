package e2e

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	sqlite3 "github.com/mattn/go-sqlite3"

	"github.com/ltxstream/ltxstream/publisher"
	"github.com/ltxstream/ltxstream/subscriber"
	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/bank"
	"github.com/ltxstream/ltxstream/testenv/foreign"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

// copyDB copies a database to to, rebuilt with the page size (0: as it is),
// and lets more transfers happen there.
func copyDB(t *testing.T, from, to string, pageSize, more int) {
	t.Helper()
	src := testenv.OpenDB(t, from, sqlconn.Options{Mode: "rw"})
	defer src.Close()
	if pageSize != 0 {
		if _, err := src.Exec(fmt.Sprintf("PRAGMA page_size=%d", pageSize)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := src.Exec("VACUUM INTO ?", to); err != nil {
		t.Fatal(err)
	}
	dst, teller := testenv.Bank(t, to, sqlconn.Options{Journal: "wal"}, 5)
	transfers(t, teller, more)
	_ = teller.Close()
	if _, err := dst.Exec("PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
		t.Fatal(err)
	}
	_ = dst.Close()
}

// rename puts a file in the place of a database, with nothing left of the old
// one.
func rename(t *testing.T, from, to string) {
	t.Helper()
	for _, suffix := range []string{"-wal", "-shm"} {
		if err := os.Remove(to + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// overwrite writes the bytes of one file into another, as cp does.
func overwrite(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"-wal", "-shm"} {
		if err := os.Remove(to + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(to, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// recreate removes a database and writes another under its name, as a copy over
// a network does: there are moments in which it is empty, and half there.
func recreate(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(to + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	for _, part := range [][]byte{b[:len(b)/2], b[len(b)/2:]} {
		<-time.After(20 * time.Millisecond) // the moment
		if _, err := out.Write(part); err != nil {
			t.Fatal(err)
		}
	}
}

// backupOver copies a database over another through SQLite, in one transaction.
func backupOver(t *testing.T, from, to string) {
	t.Helper()
	src, dst := testenv.OpenDB(t, from, sqlconn.Options{Mode: "ro"}), testenv.OpenDB(t, to, sqlconn.WAL())
	defer src.Close()
	defer dst.Close()
	err := driver(t, dst, func(d *sqlite3.SQLiteConn) error {
		return driver(t, src, func(s *sqlite3.SQLiteConn) error {
			b, err := d.Backup("main", s, "main")
			if err != nil {
				return err
			}
			if _, err := b.Step(-1); err != nil {
				return errors.Join(err, b.Finish())
			}
			return b.Finish()
		})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// driver gives f the driver's connection.
func driver(t *testing.T, db *sql.DB, f func(*sqlite3.SQLiteConn) error) error {
	c, err := db.Conn(t.Context())
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Raw(func(dc any) error { return f(dc.(*sqlite3.SQLiteConn)) })
}

// vacuum rebuilds a database in place after a backup over it: every page moves.
func vacuum(t *testing.T, from, to string) {
	t.Helper()
	backupOver(t, from, to)
	db := testenv.OpenDB(t, to, sqlconn.WAL())
	defer db.Close()
	mustExec(t, db, "CREATE TABLE x(b)", "INSERT INTO x VALUES(randomblob(300000))", "CREATE TABLE y AS SELECT * FROM account", "DROP TABLE x", "VACUUM")
}

// vacuumPageSize is vacuum with another page size, for which the database must
// leave WAL mode for a moment.
func vacuumPageSize(t *testing.T, from, to string) {
	t.Helper()
	backupOver(t, from, to)
	db := testenv.OpenDB(t, to, sqlconn.WAL())
	defer db.Close()
	mustExec(t, db, "PRAGMA journal_mode=delete", "PRAGMA page_size=2048", "VACUUM")
}

// TestPrimaryReplaced: another file under the same name (made by VACUUM INTO),
// by rename, removed and created, written over, by the backup API, rebuilt by
// VACUUM; while the publisher runs or is down; with the same page size and
// another; and smaller than what it replaces. The replica follows, and its
// readers never see a mix.
func TestPrimaryReplaced(t *testing.T) {
	cases := map[string]struct {
		down     bool // the publisher, meanwhile
		put      func(*testing.T, string, string)
		pageSize int  // of the other file; 0: the same
		rebuilt  bool // the page size becomes another one all the same
	}{
		"renamed while up":                  {put: rename},
		"renamed while up, other page size": {put: rename, pageSize: 1024},
		"renamed while down":                {down: true, put: rename},
		"copied over while down":            {down: true, put: overwrite},
		"copied over, other page size":      {down: true, put: overwrite, pageSize: 8192},
		"removed and created while up":      {put: recreate},
		"removed and created, other size":   {put: recreate, pageSize: 1024},
		"removed and created while down":    {down: true, put: recreate},
		"backup api while up":               {put: backupOver},
		"backup api while down":             {down: true, put: backupOver},
		"vacuum while up":                   {put: vacuum},
		"vacuum while down":                 {down: true, put: vacuum},
		"vacuum to another size while down": {down: true, put: vacuumPageSize, rebuilt: true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := testenv.Node(t)
			js := srv.JetStream()
			f := paths(t)
			db, teller := testenv.Bank(t, f.primary, sqlconn.WAL(), seed(t))
			transfers(t, teller, 50)
			mustExec(t, db, "CREATE TABLE ballast(b)", "INSERT INTO ballast VALUES(randomblob(300000))", "DROP TABLE ballast")
			p, pr := publish(t, js, appDB, f.primary)
			s, _ := replicate(t, js, appDB, f.replica)
			settle(t, p, s)
			var reader *foreign.Process
			if c.pageSize == 0 && !c.rebuilt {
				reader = watch(t, f.replica) // another page size waits until nobody reads
			}
			other := filepath.Join(f.dir, "other.db")
			copyDB(t, f.primary, other, c.pageSize, 40)
			want, err := lastSeq(t, other)
			if err != nil {
				t.Fatal(err)
			}
			if c.down {
				pr.mustStop(t)
			}
			_ = teller.Close()
			_ = db.Close()
			c.put(t, other, f.primary)
			if c.down {
				p, pr = publish(t, js, appDB, f.primary)
			}
			testenv.Until(t, patience, "the new file's content in the replica", func() error {
				select {
				case <-pr.done:
					t.Fatalf("the publisher has ended: %v", pr.stop())
				default:
				}
				got, err := lastSeq(t, f.replica)
				if err == nil && got != want {
					err = fmt.Errorf("replica is at transfer %d, the new file at %d: %+v %+v", got, want, p.Status(), s.Status())
				}
				return err
			})
			_, teller = testenv.Bank(t, f.primary, sqlconn.WAL(), 6)
			transfers(t, teller, 50)
			pos := settle(t, p, s)
			if reader != nil {
				testenv.Finish(t, reader)
			}
			equalAt(t, pos, f.primary, f.replica)
		})
	}
}

// TestAnotherPageSizeWaitsForReaders: a reader that has the replica open keeps
// the old state, whole; the replica says what it waits for.
func TestAnotherPageSizeWaitsForReaders(t *testing.T) {
	t.Parallel()
	srv := testenv.Node(t)
	js := srv.JetStream()
	f := paths(t)
	db, teller := testenv.Bank(t, f.primary, sqlconn.WAL(), seed(t))
	p, _ := publish(t, js, appDB, f.primary)
	s, _ := replicate(t, js, appDB, f.replica)
	settle(t, p, s)
	reader := watch(t, f.replica)
	other := filepath.Join(f.dir, "other.db")
	copyDB(t, f.primary, other, 512, 30)
	_ = teller.Close()
	_ = db.Close()
	rename(t, other, f.primary)
	testenv.Until(t, patience, "the error that names it", func() error {
		if st := s.Status(); st.Error == "" {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	t.Log(s.Status().Error)
	if rep := testenv.Finish(t, reader); rep.LastSeq != 0 {
		t.Errorf("the reader saw transfer %d", rep.LastSeq)
	}
	equalAt(t, settle(t, p, s), f.primary, f.replica)
}

// TestPrimaryComesBackOlder: what was published is newer than the file. With
// the state directory of now, the file is the truth (a power loss with
// synchronous=NORMAL looks like that): a delta follows. With a state directory
// that is older too, by less than a power loss explains, a full file follows.
// Without one it is a stale copy: refused until it is forced.
func TestPrimaryComesBackOlder(t *testing.T) {
	cases := map[string]struct {
		state   string // what happens to the state directory: "kept", "older", "gone"
		refused bool
	}{
		"file alone":           {state: "kept"},
		"file and state":       {state: "older"},
		"file, state was lost": {state: "gone", refused: true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := testenv.Node(t)
			js := srv.JetStream()
			f := paths(t)
			state := publisher.StateDir(f.primary)
			db, teller := testenv.Bank(t, f.primary, sqlconn.WAL(), seed(t))
			transfers(t, teller, 50)
			p, pr := publish(t, js, appDB, f.primary)
			s, _ := replicate(t, js, appDB, f.replica)
			settle(t, p, s)
			pr.mustStop(t)
			backup, oldState := filepath.Join(f.dir, "backup.db"), filepath.Join(f.dir, "state")
			copyDB(t, f.primary, backup, 0, 0)
			if err := os.CopyFS(oldState, os.DirFS(state)); err != nil {
				t.Fatal(err)
			}
			p, pr = publish(t, js, appDB, f.primary)
			transfers(t, teller, 50)
			settle(t, p, s)
			pr.mustStop(t)
			_ = teller.Close()
			_ = db.Close()

			overwrite(t, backup, f.primary)
			if c.state != "kept" {
				if err := os.RemoveAll(state); err != nil {
					t.Fatal(err)
				}
			}
			if c.state == "older" {
				if err := os.CopyFS(state, os.DirFS(oldState)); err != nil {
					t.Fatal(err)
				}
			}
			before := count(t, js, appDB)
			p, pr = publish(t, js, appDB, f.primary)
			if c.refused {
				if err := pr.ended(t); !errors.Is(err, publisher.ErrDiverged) {
					t.Fatalf("%v, want ErrDiverged", err)
				}
				if after := count(t, js, appDB); after != before {
					t.Fatalf("a refused publisher left %+v, there was %+v", after, before)
				}
				p, _ = publish(t, js, appDB, f.primary, func(c *publisher.Config) { c.ForceReseed = true })
			}
			equalAt(t, settle(t, p, s), f.primary, f.replica)
			_, teller = testenv.Bank(t, f.primary, sqlconn.WAL(), 6)
			transfers(t, teller, 50)
			equalAt(t, settle(t, p, s), f.primary, f.replica)
		})
	}
}

// TestEverythingComesBackOlder: server, database and state of the primary's
// machine are all put back. The replica has what nobody has any more: it says
// that it is ahead, and ends equal once the stream has come as far.
func TestEverythingComesBackOlder(t *testing.T) {
	t.Parallel()
	srv := testenv.Node(t)
	js := srv.JetStream()
	f := paths(t)
	state := publisher.StateDir(f.primary)
	db, teller := testenv.Bank(t, f.primary, sqlconn.WAL(), seed(t))
	transfers(t, teller, 20)
	p, pr := publish(t, js, appDB, f.primary)
	s, _ := replicate(t, js, appDB, f.replica)
	settle(t, p, s)
	pr.mustStop(t)
	backup, oldState := filepath.Join(f.dir, "backup.db"), filepath.Join(f.dir, "state")
	copyDB(t, f.primary, backup, 0, 0)
	if err := os.CopyFS(oldState, os.DirFS(state)); err != nil {
		t.Fatal(err)
	}
	putBack := keep(t, srv)
	p, pr = publish(t, js, appDB, f.primary)
	for range 10 {
		transfers(t, teller, 1)
		settle(t, p, s)
	}
	pr.mustStop(t)
	_ = teller.Close()
	_ = db.Close()
	putBack()
	overwrite(t, backup, f.primary)
	if err := os.RemoveAll(state); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(state, os.DirFS(oldState)); err != nil {
		t.Fatal(err)
	}
	p, _ = publish(t, js, appDB, f.primary)
	db, err := sqlconn.OpenOne(t.Context(), f.primary, sqlconn.WAL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if teller, err = bank.NewTeller(t.Context(), db, 99, 100); err != nil {
		t.Fatal(err)
	}
	testenv.Until(t, patience, "the replica to say that it is ahead", func() error {
		if st := s.Status(); st.Error == "" || st.State != subscriber.StateLive {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	for i := range 20 {
		transfers(t, teller, 1)
		pos := syncNow(t, p)
		if st := s.Status(); st.TXID > pos.TXID && st.Error == "" {
			t.Errorf("after %d transfers: the replica is ahead of the stream's %s and does not say so: %+v", i+1, pos, st)
		}
	}
	equalAt(t, settle(t, p, s), f.primary, f.replica)
	if st := s.Status(); st.State != subscriber.StateLive {
		t.Errorf("%+v", st)
	}
}
