package capture

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

// gap is what happens while nobody captures.
type gap struct {
	transactions int
	kill         bool   // how capturing ends: SIGKILL, or a clean stop
	auto         int    // wal_autocheckpoint: 0 default, -1 never, 10
	checkpoint   string // of the application, in the middle of the gap
	close        bool   // the application's last connection closes and opens
}

func (g gap) String() string {
	return fmt.Sprintf("%d kill=%t auto=%d %s close=%t", g.transactions, g.kill, g.auto, g.checkpoint, g.close)
}

func gaps() (gs []gap) {
	for _, n := range []int{0, 1, 10, 40, 80, 120, 160, 1000} {
		for _, kill := range []bool{false, true} {
			for _, auto := range []int{0, -1, 10} {
				for _, ckpt := range []string{"", "PASSIVE", "RESTART", "TRUNCATE"} {
					for _, cl := range []bool{false, true} {
						gs = append(gs, gap{n, kill, auto, ckpt, cl})
					}
				}
			}
		}
	}
	return gs
}

// After downtime, whatever the application did, a delta follows: no full file,
// and no more pages than have changed.
func TestDownWhileApplicationGoesOn(t *testing.T) {
	all := gaps()
	rnd := rand.New(rand.NewPCG(42, 3))
	rnd.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for _, g := range all[:short(48, len(all))] {
		t.Run(g.String(), func(t *testing.T) {
			t.Parallel()
			a := newApp(t, sqlconn.Options{AutoCheckpoint: g.auto}, 1)
			c := captureIn(t, captureSpec{Path: a.path})
			a.update(30)
			c.caughtUp()
			if g.kill {
				c.p.Kill()
			} else {
				c.stop()
			}
			before := imageOf(t, a.path)
			g.happen(a)
			pages := 0
			r := run(t, Config{Path: a.path, Observer: Observer{Captured: func(_ File, g Group) { pages += g.Pages }}}, &shadow{})
			r.settle()
			r.equal(a.path)
			if r.shadow.fulls != 1 {
				t.Errorf("%d full files, want the first one only", r.shadow.fulls)
			}
			r.stop()
			if n := changedPages(before, r.shadow.image, int(r.shadow.pageSize)); pages > n+n/5+1 {
				t.Errorf("captured %d pages, %d have changed", pages, n)
			}
		})
	}
}

func (g gap) happen(a *app) {
	a.update(g.transactions / 2)
	if g.checkpoint != "" {
		a.checkpoint(g.checkpoint)
	}
	if g.close {
		a.close()
		a.open()
	}
	a.update(g.transactions - g.transactions/2)
}

func imageOf(t *testing.T, path string) []byte {
	t.Helper()
	r := &running{t: t}
	return r.image(path)
}

func changedPages(a, b []byte, size int) (n int) {
	for i := 0; i < len(b); i += size {
		if i >= len(a) || !bytes.Equal(a[i:i+size], b[i:i+size]) {
			n++
		}
	}
	return n
}

// A database without a WAL has salts of zero each time it is opened.
func TestIdleWhileCapturingChangedWhileDown(t *testing.T) {
	for _, kill := range []bool{false, true} {
		a := newApp(t, sqlconn.Options{}, 1)
		a.close() // the WAL goes
		c := captureIn(t, captureSpec{Path: a.path})
		c.caughtUp()
		if kill {
			c.p.Kill()
		} else {
			c.stop()
		}
		a.open()
		a.update(20)
		a.close() // and goes again
		r := run(t, Config{Path: a.path}, &shadow{})
		r.settle()
		r.equal(a.path)
	}
}

// After a power loss the primary can be older than what was captured, and goes
// on under the same salts.
func TestPrimaryComesBackOlder(t *testing.T) {
	a := newApp(t, sqlconn.Options{AutoCheckpoint: -1}, 1)
	c := captureIn(t, captureSpec{Path: a.path, SoftWALLimit: 64 << 20})
	a.update(20)
	c.caughtUp()
	names := []string{a.path, a.path + "-wal"}
	var old [][]byte
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			t.Fatal(err)
		}
		old = append(old, b)
	}
	a.update(10)
	c.caughtUp()
	c.p.Kill()
	a.close()
	for i, n := range names { // in place: the same inode
		if err := os.WriteFile(n, old[i], 0o644); err != nil {
			t.Fatal(err)
		}
	}
	_ = os.Remove(a.path + "-shm")
	a.open()
	a.update(25)
	r := run(t, Config{Path: a.path}, &shadow{})
	r.settle()
	r.equal(a.path)
	if r.shadow.fulls != 1 {
		t.Errorf("%d full files, want the first one only", r.shadow.fulls)
	}
}

// A write-ahead log that pads transactions to sectors has more commit frames
// than transactions.
func TestPaddedCommitsAreCountedOnce(t *testing.T) {
	for _, sync := range []string{"normal", "full"} {
		a := newApp(t, sqlconn.Options{Synchronous: sync, AutoCheckpoint: -1}, 1)
		a.close()
		db := openRaw(t, a.path+"?psow=0&_synchronous="+sync+"&_journal_mode=wal")
		for i := range 7 {
			if _, err := db.Exec("UPDATE a SET v = randomblob(100) WHERE id = ?", i+1); err != nil {
				t.Fatal(err)
			}
		}
		w := openWAL(t, a.path)
		h, err := w.Header()
		if err != nil {
			t.Fatal(err)
		}
		if n, err := commitsIn(w, h); n != 7 || err != nil {
			t.Errorf("synchronous %s: %d commits, %v, want 7", sync, n, err)
		}
	}
}

func (r *running) image(path string) []byte {
	r.t.Helper()
	snap := snapshotOf(r.t, path)
	defer snap.Close()
	image, err := snap.Image(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return slices.Clone(image)
}
