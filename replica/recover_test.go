package replica

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/superfly/ltx"
)

// seedReplica returns a closed replica some transactions old.
func seedReplica(t *testing.T, rnd *rand.Rand, n int) (p *primary, path string, last file) {
	t.Helper()
	p, path = newPrimary(t, 4096), replicaPath(t)
	r := open(t, Config{Path: path})
	apply(t, r, p.bank())
	for range n {
		last = p.transfer(rnd)
		apply(t, r, last)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	return p, path, last
}

func foundAt(t *testing.T, path string, want file, how string) *Replica {
	t.Helper()
	r := open(t, Config{Path: path})
	if r.Lost() != nil || r.Position().Pos != want.pos || r.Position().Seq != uint64(want.pos.TXID)+100 {
		t.Fatalf("at %v, want %v (%v)", r.Position(), want.pos, r.Lost())
	}
	if got := r.Status().FoundBy; got != how {
		t.Errorf("found by %q, want %q", got, how)
	}
	return r
}

func TestReopen(t *testing.T) {
	state := func(path, name string) string { return filepath.Join(StateDirOf(path), name) }
	flip := func(t *testing.T, name string, off int) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if off < 0 {
			off += len(b)
		}
		b[off] ^= 0x40
		mustWrite(t, name, b)
	}
	for name, c := range map[string]struct {
		how    string
		damage func(t *testing.T, path string)
	}{
		"untouched": {foundByJournal, func(*testing.T, string) {}},
		"read and closed by another, which deletes the wal": {foundByContent, func(t *testing.T, path string) {
			c := foreign(t, path)
			imageOf(t, c)
			closeForeign(t, c)
			if _, err := os.Stat(path + "-wal"); !errors.Is(err, os.ErrNotExist) {
				t.Fatalf("the wal is still there: %v", err)
			}
		}},
		"checksum table absent":    {foundByScan, func(t *testing.T, path string) { os.Remove(state(path, sumsName)) }},
		"checksum table garbage":   {foundByScan, func(t *testing.T, path string) { mustWrite(t, state(path, sumsName), []byte("garbage")) }},
		"checksum table bit flip":  {foundByScan, func(t *testing.T, path string) { flip(t, state(path, sumsName), 4096+8*2) }},
		"checksum table too short": {foundByScan, func(t *testing.T, path string) { os.Truncate(state(path, sumsName), 4100) }},
		"journal torn behind the last entry": {foundByJournal, func(t *testing.T, path string) {
			f, _ := os.OpenFile(state(path, positionsName), os.O_WRONLY|os.O_APPEND, 0)
			f.Write([]byte("LTXP torn"))
			f.Close()
		}},
		"shm removed": {foundByJournal, func(t *testing.T, path string) { os.Remove(path + "-shm") }},
		"rewrite of the journal cut short": {foundByJournal, func(t *testing.T, path string) {
			mustWrite(t, state(path, positionsName)+newSuffix, []byte("half"))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rnd := seeded(t, 31)
			p, path, last := seedReplica(t, rnd, 20)
			c.damage(t, path)
			r := foundAt(t, path, last, c.how)
			check(t, path, last)
			next := p.transfer(rnd)
			apply(t, r, next)
			check(t, path, next)
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			foundAt(t, path, next, foundByJournal)
		})
	}
}

// A replica whose journal lost what describes it is lost, not guessed at.
func TestLost(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, path string){
		"written to": func(t *testing.T, path string) {
			c := foreign(t, path)
			run(t, c, "UPDATE head SET seq=-5")
			closeForeign(t, c)
		},
		"written to, the wal kept": func(t *testing.T, path string) {
			c := foreign(t, path)
			run(t, c, "PRAGMA wal_autocheckpoint=0")
			run(t, c, "UPDATE head SET seq=-5")
			copyAside(t, path) // as if the writer was killed
			closeForeign(t, c)
			putBack(t, path)
		},
		"written to and restarted": func(t *testing.T, path string) {
			c := foreign(t, path)
			run(t, c, "PRAGMA wal_checkpoint(RESTART)")
			run(t, c, "UPDATE head SET seq=-5")
			closeForeign(t, c)
		},
		"vacuumed": func(t *testing.T, path string) {
			c := foreign(t, path)
			run(t, c, "CREATE TABLE x(a)")
			run(t, c, "DROP TABLE x")
			run(t, c, "VACUUM")
			closeForeign(t, c)
		},
		"switched to DELETE mode": func(t *testing.T, path string) {
			c := foreign(t, path)
			run(t, c, "PRAGMA journal_mode=DELETE")
			closeForeign(t, c)
		},
		"wal removed": func(t *testing.T, path string) {
			os.Remove(path + "-wal")
			os.Remove(path + "-shm")
			flipTable(t, path)
		},
		"replaced": func(t *testing.T, path string) {
			p := newPrimary(t, 4096)
			p.bank()
			b := p.transfer(seeded(t, 99)).image
			for _, s := range []string{"", "-wal", "-shm"} {
				os.Remove(path + s)
			}
			mustWrite(t, path, b)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rnd := seeded(t, 32)
			p, path, last := seedReplica(t, rnd, 20)
			damage(t, path)
			r := open(t, Config{Path: path})
			lost := r.Lost()
			if lost == nil || !errors.Is(lost, ErrDiverged) || lost.Last.Pos != last.pos {
				if name == "wal removed" && lost == nil && r.Position().Pos == last.pos {
					return // Close had copied everything
				}
				t.Fatalf("position %v, lost: %v", r.Position(), lost)
			}
			if !r.Position().IsZero() {
				t.Fatalf("position %v", r.Position())
			}
			var pe *PosError
			if err := r.Apply(t.Context(), p.transfer(rnd).section(), ApplyInfo{}); !errors.As(err, &pe) {
				t.Fatalf("a file applied to a lost replica: %v", err)
			}
			full := p.full()
			applyFull(t, r, full)
			if r.Lost() != nil || r.Position().Pos != full.pos {
				t.Fatalf("position %v after the re-seed, %v", r.Position(), r.Lost())
			}
			check(t, path, full)
			next := p.transfer(rnd)
			apply(t, r, next)
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			foundAt(t, path, next, foundByJournal)
			check(t, path, next)
		})
	}
}

func flipTable(t *testing.T, path string) { os.Remove(filepath.Join(StateDirOf(path), sumsName)) }

// A journal entry whose commit never came must not lend its position to a
// foreign commit that ends at the same frame.
func TestForeignCommitAtJournaledFrame(t *testing.T) {
	t.Parallel()
	rnd := seeded(t, 33)
	p, path, last := seedReplica(t, rnd, 20)
	c := foreign(t, path)
	run(t, c, "PRAGMA wal_autocheckpoint=0")
	run(t, c, "PRAGMA user_version=7") // one frame
	copyAside(t, path)
	closeForeign(t, c)
	putBack(t, path)

	j, err := openJournal(filepath.Join(StateDirOf(path), positionsName))
	if err != nil {
		t.Fatal(err)
	}
	es, err := j.load()
	if err != nil {
		t.Fatal(err)
	}
	e := es[len(es)-1]
	e.Frame++ // the journal is ahead by a commit of one frame
	e.Pos = Position{Pos: p.transfer(rnd).pos, Seq: 1}
	if err := errors.Join(j.append(e), j.close()); err != nil {
		t.Fatal(err)
	}
	r := open(t, Config{Path: path})
	if r.Lost() == nil {
		t.Fatalf("position %v for a foreign commit after %v", r.Position(), last.pos)
	}
}

func TestAdopt(t *testing.T) {
	t.Parallel()
	rnd := seeded(t, 34)
	p, path, last := seedReplica(t, rnd, 5)
	if err := os.RemoveAll(StateDirOf(path)); err != nil {
		t.Fatal(err)
	}
	r := open(t, Config{Path: path})
	lost := r.Lost()
	if lost == nil || !lost.Last.IsZero() || lost.Content != last.pos.PostApplyChecksum {
		t.Fatalf("%v", lost)
	}
	if err := r.Adopt(t.Context(), Position{Pos: ltx.Pos{TXID: 3, PostApplyChecksum: ltx.ChecksumFlag}}); !errors.Is(err, ErrDiverged) {
		t.Fatal(err)
	}
	if err := r.Adopt(t.Context(), Position{Pos: last.pos, Seq: 8}); err != nil {
		t.Fatal(err)
	}
	next := p.transfer(rnd)
	apply(t, r, next)
	check(t, path, next)
}

// A full file on a live replica is one transaction, and writes only what
// differs.
func TestReseedInPlace(t *testing.T) {
	t.Parallel()
	rnd := seeded(t, 35)
	p, path := newPrimary(t, 4096), replicaPath(t)
	r := open(t, Config{Path: path})
	apply(t, r, p.bank())
	p.exec("CREATE TABLE big(id INTEGER PRIMARY KEY, b BLOB)")
	p.exec("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<500) INSERT INTO big(b) SELECT randomblob(4000) FROM n")
	apply(t, r, p.step())
	reader := foreign(t, path)
	tx, err := reader.BeginTx(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	var seq int
	tx.QueryRow("SELECT seq FROM head").Scan(&seq)
	p.transfer(rnd) // never reaches the replica
	full := p.full()
	before := r.Status().WALFrames
	applyFull(t, r, full)
	if n := r.Status().WALFrames - before; n > 20 {
		t.Errorf("%d frames for a few changed pages", n)
	}
	check(t, path, full)
	same := p.full() // a periodic full file: nothing changed
	before = r.Status().WALFrames
	applyFull(t, r, same)
	if n := r.Status().WALFrames - before; n != 0 {
		t.Errorf("%d frames for no change", n)
	}
	if r.Position().Pos != same.pos {
		t.Errorf("position %v", r.Position())
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r = foundAt(t, path, same, foundByJournal)
	next := p.transfer(rnd)
	apply(t, r, next)
	check(t, path, next)

	// Another database altogether, smaller.
	other := newPrimary(t, 4096)
	other.pos = next.pos
	other.bank()
	full = other.full()
	applyFull(t, r, full)
	check(t, path, full)
}

func TestAnotherPageSize(t *testing.T) {
	t.Parallel()
	rnd := seeded(t, 36)
	p, path := newPrimary(t, 4096), replicaPath(t)
	r := open(t, Config{Path: path})
	apply(t, r, p.bank())
	last := p.transfer(rnd)
	apply(t, r, last)
	other := newPrimary(t, 1024)
	other.pos = p.pos
	other.bank()
	full := other.full()

	reader := foreign(t, path)
	imageOf(t, reader)
	if err := r.Apply(t.Context(), full.section(), ApplyInfo{Full: true}); !errors.Is(err, ErrPageSize) {
		t.Fatalf("with a reader: %v", err)
	}
	if r.Position().Pos != last.pos {
		t.Fatalf("position %v", r.Position())
	}
	next := p.transfer(rnd)
	apply(t, r, next)
	check(t, path, next)
	closeForeign(t, reader)
	applyFull(t, r, full)
	check(t, path, full)
	next = other.transfer(rnd)
	apply(t, r, next)
	check(t, path, next)
}

func TestBootstrapBeside(t *testing.T) {
	t.Run("a reader of the empty file follows", func(t *testing.T) {
		t.Parallel()
		p, path := newPrimary(t, 8192), replicaPath(t)
		mustWrite(t, path, nil)
		reader := foreign(t, path)
		var n int
		if err := reader.QueryRowContext(t.Context(), "SELECT count(*) FROM sqlite_schema").Scan(&n); err != nil || n != 0 {
			t.Fatal(n, err)
		}
		r := open(t, Config{Path: path})
		f := p.bank()
		apply(t, r, f)
		if err := reader.QueryRowContext(t.Context(), "SELECT count(*) FROM acct").Scan(&n); err != nil || n != accounts {
			t.Fatalf("the reader sees %d accounts, %v", n, err)
		}
		check(t, path, f)
	})
	t.Run("a stale wal is not replayed", func(t *testing.T) {
		t.Parallel()
		rnd := seeded(t, 37)
		p, path, _ := seedReplica(t, rnd, 5)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		r := open(t, Config{Path: path})
		if !r.Position().IsZero() || r.Lost() != nil {
			t.Fatalf("%v %v", r.Position(), r.Lost())
		}
		p.transfer(rnd)
		full := p.full()
		applyFull(t, r, full)
		check(t, path, full)
	})
	t.Run("damaged", func(t *testing.T) {
		t.Parallel()
		p, path := newPrimary(t, 8192), replicaPath(t)
		r := open(t, Config{Path: path})
		f := p.bank()
		bad := append([]byte(nil), f.data...)
		bad[len(bad)-1] ^= 1
		if err := r.Apply(t.Context(), file{data: bad}.section(), ApplyInfo{}); !errors.Is(err, ErrDamaged) {
			t.Fatal(err)
		}
		if names, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*")); len(names) != 1 {
			t.Errorf("more is left over than the state directory: %v", names)
		}
		apply(t, r, f)
		check(t, path, f)
	})
}

func TestSecondSubscriberIsRefused(t *testing.T) {
	t.Parallel()
	p, path := newPrimary(t, 4096), replicaPath(t)
	r := open(t, Config{Path: path})
	apply(t, r, p.bank())
	if _, err := Open(t.Context(), Config{Path: path}); !errors.Is(err, ErrLocked) {
		t.Fatal(err)
	}
}

func TestMovedReplica(t *testing.T) {
	t.Parallel()
	rnd := seeded(t, 38)
	p, path := newPrimary(t, 4096), replicaPath(t)
	r := open(t, Config{Path: path, SoftWALLimit: 64 << 10})
	apply(t, r, p.bank())
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	until(t, func() bool {
		err := r.Apply(t.Context(), p.transfer(rnd).section(), ApplyInfo{})
		if err != nil && !errors.Is(err, ErrMoved) {
			t.Fatal(err)
		}
		return err != nil
	})
}

func run(t *testing.T, c *sql.Conn, stmt string) {
	t.Helper()
	if _, err := c.ExecContext(context.Background(), stmt); err != nil {
		t.Fatalf("%s: %v", stmt, err)
	}
}

// copyAside and putBack keep the files as a kill would leave them.
func copyAside(t *testing.T, path string) {
	t.Helper()
	for _, s := range []string{"", "-wal"} {
		b, err := os.ReadFile(path + s)
		if err != nil {
			t.Fatal(err)
		}
		mustWrite(t, path+s+".aside", b)
	}
}

func putBack(t *testing.T, path string) {
	t.Helper()
	for _, s := range []string{"", "-wal"} {
		b, err := os.ReadFile(path + s + ".aside")
		if err != nil {
			t.Fatal(err)
		}
		mustWrite(t, path+s, b)
	}
}

// TestReplacedUnderAnUnreadConnection: a connection that was opened before the
// replica's file was replaced, and reads afterwards for the first time, is told
// that the database is locked: it has the old file, and the new one's WAL.
func TestReplacedUnderAnUnreadConnection(t *testing.T) {
	t.Parallel()
	rnd := seeded(t, 37)
	p, path := newPrimary(t, 4096), replicaPath(t)
	r := open(t, Config{Path: path})
	apply(t, r, p.bank())
	apply(t, r, p.transfer(rnd))
	other := newPrimary(t, 1024)
	other.pos = p.pos
	other.bank()

	stale := newUnread(t, path)
	applyFull(t, r, other.full())
	for range 3 {
		next := other.transfer(rnd)
		apply(t, r, next)
		check(t, path, next)
		if said := stale.read(t); said != "database is locked" {
			t.Fatalf("it read %q", said)
		}
	}
	stale.end()
	next := other.transfer(rnd)
	apply(t, r, next)
	check(t, path, next)
}

// unread is a connection of another process: SQLite opens the file at once, and
// looks at it when it is first read.
type unread struct {
	in   io.WriteCloser
	out  *bufio.Scanner
	stop func()
}

func newUnread(t *testing.T, path string) *unread {
	t.Helper()
	cmd := exec.Command(python(t), "-uc", `
import sqlite3, sys
c = sqlite3.connect(sys.argv[1], timeout=0)
print("connected")
for line in sys.stdin:
    try: print("rows", c.execute("SELECT count(*) FROM acct").fetchone()[0])
    except sqlite3.Error as e: print(e)
`, path)
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	u := &unread{in: in, out: bufio.NewScanner(out), stop: sync.OnceFunc(func() { _ = in.Close(); _ = cmd.Wait() })}
	t.Cleanup(u.stop)
	if !u.out.Scan() {
		t.Fatal("it ended")
	}
	return u
}

func (u *unread) read(t *testing.T) string {
	t.Helper()
	if _, err := io.WriteString(u.in, "\n"); err != nil || !u.out.Scan() {
		t.Fatal("it ended", err)
	}
	return u.out.Text()
}

func (u *unread) end() { u.stop() }
