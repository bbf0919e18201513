package e2e

import (
	"database/sql"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/bank"
	"github.com/ltxstream/ltxstream/testenv/oracle"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
	"github.com/ltxstream/ltxstream/wire"
	"github.com/superfly/ltx"
)

// gap is what happens while the publisher is down.
type gap struct {
	transactions int
	signal       syscall.Signal // by which it ends
	auto         int            // wal_autocheckpoint: 0 default, -1 never, 10
	checkpoint   string         // of the application, in the middle of the gap
	lastClose    bool           // and it closes the database, as the last
}

func (g gap) String() string {
	return fmt.Sprintf("%d transactions, %v, autocheckpoint %d, checkpoint %q, last close %v", g.transactions, g.signal, g.auto, g.checkpoint, g.lastClose)
}

func gaps() (all []gap) {
	for _, n := range []int{0, 1, 10, 40, 80, 120, 160, 1000, 5000} {
		for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
			for _, auto := range []int{0, -1, 10} {
				for _, ckpt := range []string{"", "PASSIVE", "RESTART", "TRUNCATE"} {
					for _, cl := range []bool{false, true} {
						all = append(all, gap{n, sig, auto, ckpt, cl})
					}
				}
			}
		}
	}
	return all
}

// indexed is an application with an index, the entries of which move with each
// update in place.
type indexed struct {
	t      *testing.T
	path   string
	opts   sqlconn.Options
	rnd    *rand.Rand
	db     *sql.DB
	teller *bank.Teller
}

const indexedRows = 3000

func (a *indexed) open() {
	a.t.Helper()
	a.db, a.teller = testenv.Bank(a.t, a.path, a.opts, a.rnd.Uint64())
	mustExec(a.t, a.db, "CREATE TABLE IF NOT EXISTS item(id INTEGER PRIMARY KEY, k TEXT, v BLOB)", "CREATE INDEX IF NOT EXISTS item_k ON item(k)")
	mustExec(a.t, a.db, fmt.Sprintf(`INSERT OR IGNORE INTO item WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i < %d)
		SELECT i, hex(randomblob(12)), randomblob(60) FROM n WHERE NOT EXISTS (SELECT 1 FROM item)`, indexedRows))
}

func (a *indexed) close() {
	_ = a.teller.Close()
	_ = a.db.Close()
}

func (a *indexed) update(n int) {
	a.t.Helper()
	for i := range n {
		if i%4 == 0 {
			transfers(a.t, a.teller, 1)
			continue
		}
		if _, err := a.db.Exec("UPDATE item SET k = hex(randomblob(12)), v = randomblob(60) WHERE id = ?", 1+a.rnd.IntN(indexedRows)); err != nil {
			a.t.Fatal(err)
		}
	}
}

// happen is the gap itself.
// failedGaps are those that were found to fail: a backlog of 62 MB in the WAL became
// four files with the same pages.
var failedGaps = []gap{{transactions: 5000, signal: syscall.SIGKILL, auto: -1, lastClose: true}}

func (g gap) happen(a *indexed) {
	a.t.Helper()
	a.update(g.transactions / 2)
	if g.checkpoint != "" {
		if _, err := sqlconn.Checkpoint(a.t.Context(), a.db, g.checkpoint); err != nil {
			a.t.Fatal(err)
		}
	}
	if g.lastClose {
		a.close()
		a.open()
	}
	a.update(g.transactions - g.transactions/2)
}

// pagesOf returns the checksum of each page.
func pagesOf(t *testing.T, path string) (pages []ltx.Checksum, pageSize int) {
	t.Helper()
	s, err := oracle.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	pages, _, err = s.Pages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return pages, int(s.Header.PageSize)
}

// changedBytes is the size of the pages of b that are not those of a.
func changedBytes(a, b []ltx.Checksum, pageSize int) (n int64) {
	for i := range b {
		if i >= len(a) || a[i] != b[i] {
			n += int64(pageSize)
		}
	}
	return n
}

// published is the size of all LTX files of the stream, as they are there.
func published(t *testing.T, s *stage) (n int64) {
	t.Helper()
	for _, m := range history(t, s.js, appDB) {
		if meta, err := wire.ParseMeta(m.header); err == nil && meta.Part == 1 {
			n += meta.Size
		}
	}
	return n
}

// TestPublisherDownWhileApplicationGoesOn: whatever the application does to its
// WAL while nobody captures it (it wraps, and the old last frame is still in
// place), the replica ends equal by a delta, never a full file, of no more than
// the pages that changed.
func TestPublisherDownWhileApplicationGoesOn(t *testing.T) {
	for shard := range 2 {
		t.Run(fmt.Sprint("shard ", shard), func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			all := gaps()
			s.rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
			all = append(failedGaps, all...)
			a := &indexed{t: t, path: s.f.primary, opts: sqlconn.WAL(), rnd: s.rand}
			a.open()
			reader := watch(t, s.f.replica)
			for _, g := range all[:min(gapsPerShard, len(all))] {
				a.close()
				a.opts.AutoCheckpoint = g.auto
				a.open()
				a.update(30)
				settleChildren(t, s.pub, s.sub)
				before, pageSize := pagesOf(t, a.path)
				sent := published(t, s)
				s.end(g.signal)
				g.happen(a)
				s.pub.begin()
				equalAt(t, settleChildren(t, s.pub, s.sub), s.f.primary, s.f.replica)
				after, _ := pagesOf(t, a.path)
				sent = published(t, s) - sent
				changed := changedBytes(before, after, pageSize)
				if sent > changed*12/10+4096 {
					t.Errorf("%v: %d bytes published, %d changed", g, sent, changed)
				}
				if t.Failed() {
					t.Fatalf("at %v", g)
				}
			}
			testenv.Finish(t, reader)
			a.close()
			expectFull(t, s.js, appDB, 1)
			if last, err := s.sub.reports.Last(); err != nil || last.Status.Reseeds != 0 {
				t.Errorf("replica was seeded anew: %+v %v", last.Status, err)
			}
		})
	}
}

// end ends the publisher by a signal and waits until it is gone.
func (s *stage) end(sig syscall.Signal) {
	s.t.Helper()
	if err := s.pub.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
	select {
	case <-s.pub.Done():
	case <-time.After(patience):
		s.t.Fatalf("the publisher goes on after %v", sig)
	}
}
