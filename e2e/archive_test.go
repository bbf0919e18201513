package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/archiver"
	"github.com/ltxstream/ltxstream/compactor"
	"github.com/ltxstream/ltxstream/internal/tail"
	"github.com/ltxstream/ltxstream/objstore/dir"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/publisher"
	"github.com/ltxstream/ltxstream/restore"
	"github.com/ltxstream/ltxstream/subscriber"
	"github.com/ltxstream/ltxstream/subscriber/archive"
	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
	"github.com/ltxstream/ltxstream/testenv/workload"
	"github.com/ltxstream/ltxstream/wire"
)

// directory is an archive in a new directory.
func directory(t testing.TB) *levels.Archive {
	t.Helper()
	store, err := dir.New(t.Context(), dir.Config{Path: filepath.Join(t.TempDir(), "archive"), Create: true})
	if err != nil {
		t.Fatal(err)
	}
	return levels.New(store, levels.Decimal)
}

// archiving starts an archiver that flushes and compacts all the time.
func archiving(t testing.TB, js jetstream.JetStream, to *levels.Archive, p *publisher.Publisher, edit ...func(*archiver.Config)) (*archiver.Archiver, *role) {
	t.Helper()
	cfg := archiver.Config{
		JS: js, StageDir: t.TempDir(), Destinations: []archiver.Destination{{Name: "dir", Archive: to}},
		FlushInterval: 50 * time.Millisecond, Discover: 100 * time.Millisecond, LeaseTTL: 3 * time.Second,
		Schedule: compactor.Schedule{Windows: []time.Duration{300 * time.Millisecond, time.Second}, Snapshot: 700 * time.Millisecond},
		AskFull:  func(ctx context.Context, _ wire.DB) error { _, err := p.Full(ctx); return err },
		Logger:   logger(t, "archive"),
	}
	for _, e := range edit {
		e(&cfg)
	}
	a, err := archiver.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a, start(t, a.Run)
}

// archivedTo waits until the archive has all that was committed before the call.
func archivedTo(t testing.TB, a *archiver.Archiver, p *publisher.Publisher) {
	t.Helper()
	pos := syncNow(t, p)
	testenv.Until(t, patience, "archived to "+pos.String(), func() error {
		all := a.Status()
		for _, s := range all {
			if s.Archived >= pos.TXID {
				return nil
			}
		}
		return fmt.Errorf("not yet: %+v; %w", all, a.Ready(0))
	})
}

// restored brings the newest state back.
func restored(t testing.TB, target restore.Target, sources ...restore.Source) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "restored.db")
	if _, err := restore.Restore(t.Context(), restore.Config{Sources: sources, Target: target, Path: path}); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestArchiveRestoreAndReplicaAgree: primary, live replica and restore are equal
// while random SQL runs, the stream is trimmed and files are deleted by
// retention; the stream's end makes up for what is not archived yet.
func TestArchiveRestoreAndReplicaAgree(t *testing.T) {
	t.Parallel()
	s := seed(t)
	js := testenv.Node(t).JetStream()
	f := paths(t)
	db, work := testenv.OpenDB(t, f.primary, sqlconn.WAL()), workload.New(workload.Config{Seed: s})
	if _, err := work.Run(t.Context(), db, 1); err != nil { // so that there is a database to publish
		t.Fatal(err)
	}
	p, _ := publish(t, js, appDB, f.primary)
	a := directory(t)
	arch, archRole := archiving(t, js, a, p, func(c *archiver.Config) {
		c.TrimAfter, c.Policy = 300*time.Millisecond, compactor.Policy{Window: 3 * time.Second, Last: 2}
	})
	sub, _ := replicate(t, js, appDB, f.replica, smallWAL)
	for range 4 {
		if _, err := work.Run(t.Context(), db, 150); err != nil {
			t.Fatal(err)
		}
		settle(t, p, sub)
		archivedTo(t, arch, p)
		testenv.Compare(t, f.primary, f.replica)
		testenv.Compare(t, f.primary, restored(t, restore.Target{}, restore.Of(a, string(appDB))))
	}
	archRole.mustStop(t)
	_, teller := testenv.Bank(t, f.primary, sqlconn.WAL(), s)
	transfers(t, teller, 20)
	settle(t, p, sub)
	inv, err := compactor.ReadInventory(t.Context(), a, string(appDB))
	if err != nil {
		t.Fatal(err)
	}
	end := inv.End()
	post, err := compactor.PostOf(t.Context(), a, string(appDB), end)
	if err != nil {
		t.Fatal(err)
	}
	tailDir := t.TempDir()
	fetched, err := tail.Fetch(t.Context(), tail.Config{JS: js, DB: appDB, After: ltx.NewPos(end.Max, post), Dir: tailDir, Logger: logger(t, "tail")})
	if err != nil || fetched.Files == 0 {
		t.Fatalf("%d files behind the archive: %v", fetched.Files, err)
	}
	testenv.Compare(t, f.primary, restored(t, restore.Target{}, restore.Of(a, string(appDB)), restore.Of(fetched.Archive, string(appDB))))
}

// TestReplicaFromArchive: the stream was trimmed. A new replica begins from the
// archive; one that fell behind goes on from it, with a reader on it that sees no
// state that never was; one of another history begins anew.
func TestReplicaFromArchive(t *testing.T) {
	t.Parallel()
	s := seed(t)
	js := testenv.Node(t).JetStream()
	f := paths(t)
	_, teller := testenv.Bank(t, f.primary, sqlconn.WAL(), s)
	p, _ := publish(t, js, appDB, f.primary)
	a := directory(t)
	arch, _ := archiving(t, js, a, p, func(c *archiver.Config) { c.TrimAfter = 200 * time.Millisecond })
	from := func(c *subscriber.Config) {
		c.Bootstrapper = &archive.Bootstrapper{Archive: a, Dir: t.TempDir(), Logger: logger(t, "base")}
	}
	transfers(t, teller, 20)
	sub, subRole := replicate(t, js, appDB, f.replica, from)
	left := settle(t, p, sub)
	reader := watch(t, f.replica)
	subRole.mustStop(t)

	for range 3 {
		transfers(t, teller, 30)
		archivedTo(t, arch, p)
	}
	testenv.Until(t, patience, "the stream trimmed", func() error {
		all := history(t, js, appDB)
		for _, m := range all {
			if m.subject == appDB.DataSubject() {
				meta, err := wire.ParseMeta(m.header)
				if err == nil && meta.Min <= left.TXID+1 {
					err = errors.New("not yet")
				}
				return err
			}
		}
		return errors.New("no data")
	})
	behind, _ := replicate(t, js, appDB, f.replica, from)
	fresh, _ := replicate(t, js, appDB, filepath.Join(t.TempDir(), "fresh.db"), from)
	equalAt(t, settle(t, p, behind, fresh), f.primary, f.replica)
	if st := behind.Status(); st.Bases == 0 || st.Reseeds > 0 {
		t.Errorf("the replica that fell behind: %+v", st)
	}
	if st := fresh.Status(); st.Bases == 0 {
		t.Errorf("the new replica: %+v", st)
	}
	transfers(t, teller, 10)
	settle(t, p, behind, fresh)
	testenv.Finish(t, reader)
	if _, err := os.Stat(f.replica); err != nil {
		t.Fatal(err)
	}
}
