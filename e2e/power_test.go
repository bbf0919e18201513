package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ltxstream/ltxstream/internal/wal"
	"github.com/ltxstream/ltxstream/replica"
	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/app"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

// losePower does to the files of a replica that nobody has open what a power
// loss may: of what was not synced, any part is gone. The wal-index is gone;
// the WAL may end anywhere behind what was copied into the database file, for
// which it was synced; the state directory is as the file system left it.
func losePower(t *testing.T, rnd *rand.Rand, path string) (what []string) {
	t.Helper()
	did := func(format string, args ...any) { what = append(what, fmt.Sprintf(format, args...)) }
	if n := cutWAL(t, rnd, path); n != 0 {
		did("%d bytes of the WAL", n)
	}
	if err := os.Remove(path + "-shm"); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(replica.StateDirOf(path), "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		fi, err := os.Stat(name)
		if err != nil || !fi.Mode().IsRegular() || fi.Size() == 0 || strings.HasSuffix(name, "lock") || rnd.IntN(2) == 0 {
			continue
		}
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		switch at := rnd.IntN(len(b)); rnd.IntN(3) {
		case 0:
			did("%s from byte %d", filepath.Base(name), at)
			b = b[:at]
		case 1:
			end := min(len(b), at+1+rnd.IntN(4096))
			did("%s bytes %d to %d", filepath.Base(name), at, end)
			clear(b[at:end])
		case 2:
			did("%s", filepath.Base(name))
			b = nil
		}
		if err := os.WriteFile(name, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return what
}

// cutWAL cuts the WAL at any byte behind the frames that may be in the database
// file, or leaves zeros there.
func cutWAL(t *testing.T, rnd *rand.Rand, path string) (lost int64) {
	t.Helper()
	index, err := os.ReadFile(path + "-shm")
	if err != nil || len(index) < 136 {
		return 0
	}
	pageSize := uint32(binary.NativeEndian.Uint16(index[14:]))
	synced := wal.FrameOffset(binary.NativeEndian.Uint32(index[128:])+1, max(pageSize, 512)) // nBackfillAttempted
	fi, err := os.Stat(path + "-wal")
	if err != nil || fi.Size() <= synced {
		return 0
	}
	at := synced + rnd.Int64N(fi.Size()-synced)
	if rnd.IntN(2) == 0 {
		if err := os.Truncate(path+"-wal", at); err != nil {
			t.Fatal(err)
		}
		return fi.Size() - at
	}
	f, err := os.OpenFile(path+"-wal", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(make([]byte, fi.Size()-at), at); err != nil {
		t.Fatal(err)
	}
	return fi.Size() - at
}

// TestPowerLossOfTheReplica: the subscriber's machine loses power, and with it
// what was not synced, again and again. The replica is found where it is, or
// compared, or seeded anew; it ends equal, and nobody reads a wrong state.
func TestPowerLossOfTheReplica(t *testing.T) {
	t.Parallel()
	rnd := random(seed(t))
	f := paths(t)
	js := testenv.Node(t).JetStream()
	_, _ = testenv.Bank(t, f.primary, sqlconn.WAL(), 1)
	p, _ := publish(t, js, appDB, f.primary)
	sub := runRole[subReport](t, "e2e-subscriber", roleSpec{URL: js.Conn().ConnectedUrl(), DB: appDB, Path: f.replica})
	reseeds := 0
	for range powerLosses {
		writer := testenv.App(t, app.Config{Path: f.primary, DB: sqlconn.WAL(), Seed: rnd.Uint64(), NoteBytes: 300, Limit: 100 + rnd.Int64N(300)})
		if _, err := writer.WaitFor(t.Context(), 50); err != nil {
			t.Fatal(err)
		}
		sub.waitFor("something applied", func(r subReport) bool { return r.Status.TXID != 0 })
		sub.Kill()
		if _, err := writer.Result(t.Context()); err != nil {
			t.Fatal(err)
		}
		what := losePower(t, rnd, f.replica)
		sub.begin()
		// Until one process has made the wal-index anew, SQLite itself has others wait for it.
		sub.waitFor("the replica open", func(r subReport) bool { return r.Status.TXID != 0 })
		reader := watch(t, f.replica)
		pos := syncNow(t, p)
		r := sub.waitFor(fmt.Sprint("position ", pos, " after the loss of ", what), func(r subReport) bool {
			return r.Status.TXID == pos.TXID && r.Status.Checksum == pos.PostApplyChecksum
		})
		reseeds += int(r.Status.Reseeds)
		testenv.Finish(t, reader)
		testenv.Compare(t, f.primary, f.replica)
		if t.Failed() {
			t.Fatalf("after the loss of %v", what)
		}
	}
	t.Logf("%d losses, %d times seeded anew", powerLosses, reseeds)
	expectFull(t, js, appDB, 1)
}
