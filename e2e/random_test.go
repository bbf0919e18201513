package e2e

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/ltxstream/ltxstream/publisher"
	"github.com/ltxstream/ltxstream/subscriber"
	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
	"github.com/ltxstream/ltxstream/testenv/workload"
	"github.com/ltxstream/ltxstream/wire"
)

// TestRandomWork runs seeded SQL (DDL, VACUUM, blobs, savepoints, checkpoints of
// every mode) over page sizes and auto_vacuum modes, on several databases, each
// with two replicas, all in one process.
func TestRandomWork(t *testing.T) {
	t.Parallel()
	base := seed(t)
	sizes := []int{512, 4096, 1024, 65536, 2048, 16384}
	srv := testenv.Node(t)
	notifier, err := publisher.NewNotifier()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = notifier.Close() })
	for i := range randomSeeds {
		pageSize, vacuum, per := sizes[i%len(sizes)], i%3, i%2 == 1
		name := fmt.Sprintf("%d-page-%d-vacuum-%d-per-transaction-%v", i, pageSize, vacuum, per)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			o := sqlconn.WAL()
			o.PageSize, o.AutoVacuum = pageSize, vacuum
			if i%4 == 3 {
				o.AutoCheckpoint = 10
			}
			db := wire.DB(fmt.Sprintf("random-%d", i))
			primary := filepath.Join(dir, "p.db")
			conn := testenv.OpenDB(t, primary, o)
			work := workload.New(workload.Config{Seed: base + uint64(i)})
			js := srv.JetStream()
			p, _ := publish(t, js, db, primary, func(c *publisher.Config) {
				c.Notifier, c.PerTransaction, c.SoftWALLimit = notifier, per, 256<<10
			})
			r1, r2 := filepath.Join(dir, "r1.db"), filepath.Join(dir, "r2.db")
			subs := make([]*subscriber.Subscriber, 2)
			subs[0], _ = replicate(t, js, db, r1, smallWAL)
			for step := range 4 {
				if _, err := work.Run(t.Context(), conn, randomWork/4); err != nil {
					t.Fatal(err)
				}
				if step == 1 {
					subs[1], _ = replicate(t, js, db, r2, func(c *subscriber.Config) { c.MemoryLimit = 64 << 10 })
				}
				if step > 0 {
					settle(t, p, subs[:min(step, 2)]...)
				}
			}
			testenv.Compare(t, primary, r1, r2)
			expectNoReseed(t, subs...)
			expectFull(t, js, db, 1)
			rep, err := work.Run(t.Context(), conn, 1)
			t.Logf("%+v %v", rep, err)
		})
	}
}
