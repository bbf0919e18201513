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
