package archiver

import (
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/compactor"
	"github.com/ltxstream/ltxstream/internal/stream/streamtest"
	"github.com/ltxstream/ltxstream/objstore/levels"
)

// TestClockWentBack: a publisher whose clock is behind took over. The archive goes
// on, within one flush and over many, with merges and snapshots, and each point
// restores.
func TestClockWentBack(t *testing.T) {
	t.Parallel()
	js := streamtest.Connect(t, newServer(t))
	src := newSource(t, js, "app", 43)
	dest := newTarget()
	src.publish(t, 10)
	src.h.Skip(-time.Hour)
	src.publish(t, 10)
	cfg := quickly(t, js, dest)
	cfg.FlushInterval = 300 * time.Millisecond
	cfg.Policy = compactor.Policy{Window: time.Hour}
	a, _ := start(t, cfg)
	reached(t, dest, "app", 20)
	src.h.Skip(-time.Hour)
	for range 3 {
		src.publish(t, 2)
		reached(t, dest, "app", src.published)
	}
	for _, level := range []levels.Level{2, levels.Snapshot} {
		streamtest.Eventually(t, "merged to the end", func() bool { return newestOf(t, dest, level) >= 24 })
	}
	if s := a.Status(); len(s) != 1 || s[0].Error != "" || s[0].Alarm != "" {
		t.Errorf("%+v", s)
	}
	for _, txid := range points(t, dest, "app") {
		src.check(t, dest, txid)
	}
}
