package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/objstore/open"
	"github.com/ltxstream/ltxstream/replica"
	"github.com/ltxstream/ltxstream/subscriber"
	"github.com/ltxstream/ltxstream/subscriber/archive"
	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/app"
	"github.com/ltxstream/ltxstream/testenv/bank"
	"github.com/ltxstream/ltxstream/testenv/child"
	"github.com/ltxstream/ltxstream/testenv/litestream"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
	"github.com/ltxstream/ltxstream/wire"
)

// followerConfig is a subscriber that follows the archive at a URL.
func followerConfig(ctx context.Context, url string, db wire.DB, path string, log *slog.Logger) (cfg subscriber.Config, closeArchive func() error, err error) {
	a, err := open.Archive(ctx, url, open.Options{})
	if err != nil {
		return cfg, nil, err
	}
	cfg = subscriber.Config{DB: db, Path: path, StateDir: replica.StateDirOf(path), PollInterval: 10 * time.Millisecond, SoftWALLimit: 128 << 10, Logger: log}
	cfg.Bootstrapper = &archive.Follower{Archive: a, StateDir: cfg.StateDir, Dir: filepath.Dir(path), Logger: log}
	return cfg, a.Store().Close, nil
}

// followerJob follows the archive at spec.URL in a process of its own.
func followerJob(ctx context.Context, raw json.RawMessage, out *child.Output) error {
	var s roleSpec
	if err := json.Unmarshal(raw, &s); err != nil {
		return err
	}
	cfg, closeArchive, err := followerConfig(ctx, s.URL, s.DB, s.Path, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer closeArchive()
	cfg.SoleOwner = true
	return runSubscriber(ctx, cfg, out)
}

// litestreamYAML is a Litestream in a hurry: what takes it minutes takes seconds
// here, retention included.
func litestreamYAML(primary, archive string) string {
	return fmt.Sprintf(`
l0-retention: 1s
l0-retention-check-interval: 200ms
levels:
- interval: 500ms
- interval: 2s
snapshot:
  interval: 3s
  retention: 3s
dbs:
- path: %s
  monitor-interval: 20ms
  replica:
    type: file
    path: %s
    sync-interval: 20ms
`, primary, archive)
}

// TestFollowLitestream: a replica follows what the real Litestream writes to a
// directory, without NATS, while readers of every kind look at it and its process
// is killed at random moments; where Litestream's retention was faster than its
// return, it is seeded anew in place. No reader ever sees anything but a state of
// the primary, or one older than it saw before.
func TestFollowLitestream(t *testing.T) {
	t.Parallel()
	rnd := random(seed(t))
	f := paths(t)
	_, _ = testenv.Bank(t, f.primary, sqlconn.WAL(), 1)
	dir := filepath.Join(t.TempDir(), "backup", "app")
	ls := litestream.Current.Start(t, nil, "replicate", "-config", litestream.Config(t, litestreamYAML(f.primary, dir)))
	sub := runRole[subReport](t, "e2e-follower", roleSpec{URL: "file://" + filepath.Dir(dir), DB: "app", Path: f.replica})
	live := func(r subReport) bool { return r.Status.State == subscriber.StateLive && r.Status.Connected }
	sub.waitFor("the first state", live)

	writer := testenv.App(t, app.Config{Path: f.primary, DB: sqlconn.WAL(), Seed: rnd.Uint64(), Rate: 150, NoteBytes: 400})
	c := crowd{}
	for name, cfg := range readersOf(f.replica) {
		if strings.Contains(name, "ro ") || strings.Contains(name, "truncates") {
			cfg.Path = f.replica
			c[name] = testenv.Foreign(t, cfg)
		}
	}
	down := 0
	for round := range followRounds {
		<-time.After(time.Duration(300+rnd.IntN(700)) * time.Millisecond)
		sub.Kill()
		if round%3 == 2 { // until its next TXID is gone, most of the time
			down++
			<-time.After(5 * time.Second)
		}
		sub.begin()
		sub.waitFor("the archive again", live)
		c.checks(t)
	}
	rep, err := writer.Finish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	db := testenv.OpenDB(t, f.replica, sqlconn.Options{Mode: "ro"})
	testenv.Until(t, patience, fmt.Sprintf("transfer %d", rep.Report.LastSeq), func() error {
		st, err := bank.Check(t.Context(), db)
		if err == nil && st.Seq != rep.Report.LastSeq {
			err = fmt.Errorf("the replica has transfer %d", st.Seq)
		}
		return err
	})
	_ = db.Close()
	total := c.disperse(t)
	last := sub.waitFor("the end", live)
	t.Logf("%d checks, %d kills, %d long pauses, primary %s, replica at %s", total, followRounds, down, rep.Report, last.Status.TXID)
	litestream.Stop(t, ls)
	testenv.CompareRows(t, f.primary, f.replica)
}

// TestFollowArchive: a replica follows an archive of ltx-archive's without NATS,
// and ends equal to one that follows the stream.
func TestFollowArchive(t *testing.T) {
	t.Parallel()
	js := testenv.Node(t).JetStream()
	f := paths(t)
	_, teller := testenv.Bank(t, f.primary, sqlconn.WAL(), seed(t))
	url := "file://" + filepath.Join(t.TempDir(), "archive")
	p, _ := publish(t, js, appDB, f.primary)
	arch, _ := archiving(t, js, byURL(t, js, url), p)
	cfg, closeArchive, err := followerConfig(t.Context(), url, appDB, f.replica, logger(t, "follow"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = closeArchive() })
	s, err := subscriber.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	_ = start(t, s.Run)
	transfers(t, teller, 10)
	archivedTo(t, arch, p)
	waitAt(t, patience, s, syncNow(t, p))
	reader := watch(t, f.replica)
	for range 10 {
		transfers(t, teller, 10)
		archivedTo(t, arch, p)
	}
	waitAt(t, patience, s, syncNow(t, p))
	testenv.Finish(t, reader)
	testenv.Compare(t, f.primary, f.replica)
	expectNoReseed(t, s)
	if st := s.Status(); st.Archive == "" || st.Stream != "" || !st.Connected || st.Timestamp == nil {
		t.Errorf("status %+v", st)
	}
}
