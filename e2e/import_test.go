package e2e

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/archiver"
	"github.com/ltxstream/ltxstream/compactor"
	"github.com/ltxstream/ltxstream/internal/litestream"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/publisher"
	"github.com/ltxstream/ltxstream/restore"
	"github.com/ltxstream/ltxstream/subscriber"
	"github.com/ltxstream/ltxstream/subscriber/archive"
	"github.com/ltxstream/ltxstream/testenv"
	real "github.com/ltxstream/ltxstream/testenv/litestream"
	"github.com/ltxstream/ltxstream/testenv/oracle"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
	"github.com/ltxstream/ltxstream/testenv/storage"
	"github.com/ltxstream/ltxstream/wire"
)

// destination is where Litestream keeps a database: for its own configuration, for its
// commands, and as we see it.
type destination struct {
	yaml    string // keys of the replica
	env     []string
	archive *levels.Archive
	db      string // the database's name there
	dest    archiver.Destination
}

// inDirectory is a folder of a directory; the archive is the directory.
func inDirectory(t *testing.T) *destination {
	dir := filepath.Join(t.TempDir(), "archive")
	a := byURL(t, nil, "file://"+dir)
	return &destination{
		yaml: fmt.Sprintf("type: file, path: %s", filepath.Join(dir, string(appDB))), archive: a, db: string(appDB),
		dest: archiver.Destination{Name: "there", Archive: a},
	}
}

// inS3 is a prefix of a bucket, which is the archive itself.
func inS3(t *testing.T) *destination {
	server := storage.StartVersityGW(t, "bucket")
	a := s3ArchiveOn(t, server)
	return &destination{
		yaml:    fmt.Sprintf("type: s3, bucket: bucket, path: some/where, endpoint: %q, region: us-east-1, force-path-style: true", server.URL),
		env:     []string{"AWS_ACCESS_KEY_ID=" + server.AccessKey, "AWS_SECRET_ACCESS_KEY=" + server.SecretKey, "AWS_CA_BUNDLE="}, // with one it ends at once
		archive: a, db: levels.Root,
		dest: archiver.Destination{Name: "there", Archive: a, DB: appDB},
	}
}

// config makes Litestream merge all the time, so that there is something at every
// level.
func (r *destination) config(t *testing.T, path string) string {
	return real.Config(t, fmt.Sprintf("levels: [{interval: 400ms}, {interval: 1s}, {interval: 2s}]\nsnapshot: {interval: 3s}\n"+
		"dbs:\n- path: %s\n  replica: {%s, sync-interval: 50ms}\n", path, r.yaml))
}

func (r *destination) end(t *testing.T) levels.File {
	t.Helper()
	inv, err := compactor.ReadInventory(t.Context(), r.archive, r.db)
	if err != nil {
		t.Fatal(err)
	}
	return inv.End()
}

// byLitestream restores with the real one.
func (r *destination) byLitestream(t *testing.T, config, path string, flags ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "litestream.db")
	args := append([]string{"restore", "-config", config, "-o", out}, flags...)
	real.Current.MustRun(t, r.env, append(args, path)...)
	return out
}

// copies are what a database was at points of its archive.
type copies struct {
	db *sql.DB
	at map[restore.Target]string
}

// keep copies the database, at a point that is known not to move.
func (c *copies) keep(t *testing.T, txid ltx.TXID, when time.Time) {
	t.Helper()
	rows := filepath.Join(t.TempDir(), "then.db")
	if _, err := c.db.ExecContext(t.Context(), "VACUUM INTO ?", rows); err != nil {
		t.Fatal(err)
	}
	c.at[restore.Target{TXID: txid}] = rows
	c.at[restore.Target{Time: when}] = rows
}

// keepReplicated waits until Litestream has uploaded all there is, and keeps it.
func (r *destination) keepReplicated(t *testing.T, c *copies, config, path string) {
	t.Helper()
	testenv.Until(t, patience, "Litestream to have it", func() error {
		before := r.end(t)
		if before.Max == 0 {
			return fmt.Errorf("nothing there")
		}
		if err := oracle.DiffRows(t.Context(), path, r.byLitestream(t, config, path)); err != nil {
			return err
		}
		stamped, err := r.archive.StampedByHeader(t.Context(), r.db, before)
		if err != nil || r.end(t).Max != before.Max {
			return fmt.Errorf("it goes on: %w", err)
		}
		c.keep(t, before.Max, stamped.Timestamp)
		return nil
	})
}

// TestContinueLitestream: a database that the real Litestream replicated goes on in
// the same place, its application never stopped. Every point of both sides is
// restored by TXID and by time; the real Litestream restores the newest one and an
// old one of its own; a replica begins from it; nothing is missing or damaged.
func TestContinueLitestream(t *testing.T) {
	t.Parallel()
	for name, where := range map[string]func(*testing.T) *destination{"directory": inDirectory, "s3": inS3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if testing.Short() && name != "directory" {
				t.Skip("needs a storage server")
			}
			continueLitestream(t, where(t))
		})
	}
}

func continueLitestream(t *testing.T, r *destination) {
	f := paths(t)
	db, teller := testenv.Bank(t, f.primary, sqlconn.WAL(), seed(t))
	points := &copies{db: db, at: map[restore.Target]string{}}
	config := r.config(t, f.primary)
	process := real.Current.Start(t, r.env, "replicate", "-config", config)
	for range 2 {
		for range 5 {
			before := r.end(t).Max
			transfers(t, teller, 3)
			testenv.Until(t, patience, "a file more", func() error {
				if r.end(t).Max == before {
					return fmt.Errorf("it ends at %s", before)
				}
				return nil
			})
		}
		r.keepReplicated(t, points, config, f.primary)
	}
	transfers(t, teller, 5)
	real.Stop(t, process)
	last := r.end(t)
	stamped, err := r.archive.StampedByHeader(t.Context(), r.db, last)
	if err != nil {
		t.Fatal(err)
	}
	points.keep(t, last.Max, stamped.Timestamp)
	t.Logf("Litestream ended with %v", last)
	transfers(t, teller, 5) // nobody replicates

	js := testenv.Node(t).JetStream()
	origin := litestream.Origin{Archive: r.archive, Names: []string{r.db}, Path: f.primary, Logger: logger(t, "origin")}
	p, _ := publish(t, js, appDB, f.primary, func(c *publisher.Config) { c.After = origin.End })
	if first := syncNow(t, p); first.TXID != last.Max+1 {
		t.Fatalf("the first file has TXID %s behind %s", first.TXID, last.Max)
	}
	arch, archRole := archiving(t, js, r.archive, p, func(c *archiver.Config) {
		c.Destinations, c.TrimAfter = []archiver.Destination{r.dest}, 200*time.Millisecond
	})
	for range 2 {
		archivedTo(t, arch, p)
		points.keep(t, syncNow(t, p).TXID, arch.Status()[0].ArchivedTime)
		transfers(t, teller, 15)
	}
	archivedTo(t, arch, p)
	archRole.mustStop(t)

	source := restore.Of(r.archive, r.db)
	testenv.Compare(t, f.primary, restored(t, restore.Target{}, source))
	for target, rows := range points.at {
		testenv.CompareRows(t, rows, restored(t, target, source))
	}
	testenv.CompareRows(t, f.primary, r.byLitestream(t, config, f.primary))
	testenv.CompareRows(t, points.at[restore.Target{TXID: last.Max}], r.byLitestream(t, config, f.primary, "-txid", last.Max.String()))
	r.verified(t)

	if r.db == string(appDB) { // a subscriber knows no other name
		str, err := js.Stream(t.Context(), wire.DefaultStream)
		if err == nil { // as the archiver does, when it has the time
			err = str.Purge(t.Context(), jetstream.WithPurgeSubject(appDB.DataSubject()), jetstream.WithPurgeKeep(1))
		}
		if err != nil {
			t.Fatal(err)
		}
		sub, _ := replicate(t, js, appDB, f.replica, func(c *subscriber.Config) {
			c.Bootstrapper = &archive.Bootstrapper{Archive: r.archive, Dir: t.TempDir(), Logger: logger(t, "base")}
		})
		transfers(t, teller, 5)
		equalAt(t, settle(t, p, sub), f.primary, f.replica)
		if st := sub.Status(); st.Bases == 0 {
			t.Errorf("the replica did not begin from the archive: %+v", st)
		}
	}
}

// verified reads every file whole: one history, and something at every level.
func (r *destination) verified(t *testing.T) {
	t.Helper()
	catalog, err := restore.Read(t.Context(), restore.Of(r.archive, r.db))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(catalog.Stretches()); n != 1 {
		t.Errorf("%d stretches, want one: %+v", n, catalog.Stretches())
	}
	levelsSeen := map[levels.Level]int{}
	for _, f := range catalog.Files {
		levelsSeen[f.Level]++
		if _, err := compactor.Inspect(t.Context(), r.archive, r.db, f.File); err != nil {
			t.Error(err)
		}
	}
	t.Logf("files by level: %v", levelsSeen)
}
