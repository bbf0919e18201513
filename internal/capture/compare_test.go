package capture

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

// TestComparisonsBesideCheckpoints: one comparison after the other, each with many
// pauses, while the application writes, grows, shrinks and has its checkpoints
// restart the WAL. What a comparison read before a pause and did not read again
// would stay wrong.
func TestComparisonsBesideCheckpoints(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	a := newApp(t, sqlconn.Options{AutoCheckpoint: -1, PageSize: 1024}, seed)
	a.exec("CREATE TABLE b (id INTEGER PRIMARY KEY, v BLOB)")
	r := run(t, Config{Path: a.path, Crash: func(label string) {
		if label == "compare" || label == "overlay" || label == "write" {
			time.Sleep(3 * time.Millisecond)
		}
	}}, &shadow{})
	rounds := 5
	if soak {
		rounds = 1000
	}
	for round := range rounds {
		for range 40 {
			switch n := rng.IntN(20); {
			case n < 2:
				r.c.Full()
			case n == 2:
				a.exec("DELETE FROM b WHERE id % 3 = ?", rng.IntN(3))
			case n == 3:
				a.exec("VACUUM")
			case n < 7:
				a.checkpoint([]string{"PASSIVE", "RESTART", "TRUNCATE"}[rng.IntN(3)])
			case n < 10:
				a.exec("INSERT INTO b (v) VALUES (randomblob(?))", rng.IntN(1<<20))
			case n < 14:
				a.exec("UPDATE b SET v = randomblob(length(v)) WHERE id % 5 = ?", rng.IntN(5))
			default:
				a.update(1 + rng.IntN(20))
			}
		}
		r.settle()
		r.equal(a.path)
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
		a.exec("DELETE FROM b WHERE id % 2 = 0")
	}
	s := r.c.Stats()
	t.Logf("%d comparisons, %d yields, %d restarts", s.Comparisons, s.Yields, s.Restarts)
	if s.Comparisons < uint64(rounds/2) || s.Yields < uint64(rounds/2) {
		t.Errorf("%d comparisons, %d yields: nothing was tried", s.Comparisons, s.Yields)
	}
}

// TestFullAskedWhileOneIsAnnounced: who asks for a full file while one that was asked
// for before is about to be known gets another.
func TestFullAskedWhileOneIsAnnounced(t *testing.T) {
	a := newApp(t, sqlconn.Options{}, 1)
	c, err := Open(t.Context(), Config{Path: a.path, Logger: quiet(t)})
	must(t, err)
	defer c.Close()
	steps := func() {
		for range 3 {
			_, err := c.step(t.Context(), true)
			must(t, err)
		}
	}
	steps()
	asked := false
	c.cfg.Crash = func(label string) {
		if label == "table" && !asked {
			asked = true
			c.Full()
		}
	}
	c.Full()
	steps()
	if f, _ := c.spool.last(); !asked || !f.Full || f.TXID() != 3 {
		t.Errorf("asked %t, the last file is %v, full %t", asked, f.TXID(), f.Full)
	}
}
