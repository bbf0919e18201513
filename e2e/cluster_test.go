package e2e

import (
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/publisher"
	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/app"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
	"github.com/ltxstream/ltxstream/wire"
)

// TestClusterLeaderKilled: a stream on three replicas, its leader killed while
// both roles run. Replication goes on by itself, with nothing lost.
func TestClusterLeaderKilled(t *testing.T) {
	t.Parallel()
	c := testenv.ClusterProcesses(t)
	js := testenv.JetStream(t, testenv.Connect(t, c.URL()))
	f := paths(t)
	_, _ = testenv.Bank(t, f.primary, sqlconn.WAL(), seed(t))
	p, _ := publish(t, js, appDB, f.primary, func(c *publisher.Config) { c.Replicas = 3 })
	s, _ := replicate(t, js, appDB, f.replica)
	settle(t, p, s)
	reader := watch(t, f.replica)
	writer := testenv.App(t, app.Config{Path: f.primary, DB: sqlconn.WAL(), Rate: 100})
	if _, err := writer.WaitFor(t.Context(), 50); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitCurrent(t.Context(), wire.DefaultStream); err != nil {
		t.Fatal(err)
	}
	if _, err := c.KillLeader(t.Context(), wire.DefaultStream); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	if _, err := writer.WaitFor(t.Context(), writer.Progress().Report.Commits+50); err != nil {
		t.Fatal(err)
	}
	pos := settleAtLeast(t, p, s)
	t.Logf("at %s again %v after the leader was killed", pos, time.Since(killed))
	rep, err := writer.Finish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Log(rep.Report)
	settle(t, p, s)
	testenv.Finish(t, reader)
	testenv.Compare(t, f.primary, f.replica)
	expectNoReseed(t, s)
	expectFull(t, js, appDB, 1)
}
