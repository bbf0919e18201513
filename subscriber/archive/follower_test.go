package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/subscriber"
	"github.com/ltxstream/ltxstream/testenv/history"
)

// following is a replica, as far as a Follower knows it: a position, and a
// directory that outlives a restart.
type following struct {
	*world
	t     *testing.T
	f     *Follower
	pos   ltx.Pos
	steps []string // what was applied: "full 1-9", "10-12"
}

// follow begins to follow w's archive.
func (w *world) follow(t *testing.T) *following {
	fl := &following{world: w, t: t}
	fl.restart(t.TempDir())
	return fl
}

// restart is a new process with the same, or another, state directory.
func (fl *following) restart(state string) {
	fl.f = &Follower{Archive: fl.a, StateDir: state, Dir: fl.t.TempDir(), Logger: slog.New(slog.DiscardHandler)}
}

// step applies what comes next. What a file without checksums leads to is what
// the history says, so that a change taken for another history's would show.
func (fl *following) step() error {
	fl.t.Helper()
	base, err := fl.f.Base(fl.t.Context(), "app", fl.pos)
	if err != nil {
		return err
	}
	defer base.Close()
	dec := ltx.NewDecoder(base.File)
	if err := dec.Verify(); err != nil {
		fl.t.Fatal(err)
	}
	hdr := dec.Header()
	switch {
	case base.Full && hdr.MinTXID != 1, base.Max != hdr.MaxTXID, base.NoChecksums != hdr.NoChecksum():
		fl.t.Fatalf("it says %+v, and holds %+v", base, hdr)
	case !base.Full && (hdr.MinTXID > fl.pos.TXID+1 || hdr.MaxTXID <= fl.pos.TXID || fl.pos.IsZero()):
		fl.t.Fatalf("changes %s-%s behind %s", hdr.MinTXID, hdr.MaxTXID, fl.pos)
	case !base.Timestamp.Equal(time.UnixMilli(hdr.Timestamp)):
		fl.t.Fatalf("time %s, header %d", base.Timestamp, hdr.Timestamp)
	}
	fl.pos = fl.h.State(hdr.MaxTXID).Pos
	fl.steps = append(fl.steps, fmt.Sprintf("%s%d-%d", map[bool]string{true: "full "}[base.Full], hdr.MinTXID, hdr.MaxTXID))
	return nil
}

// catchUp applies all there is, and checks what that was.
func (fl *following) catchUp(want ...string) {
	fl.t.Helper()
	fl.steps = nil
	for {
		err := fl.step()
		if errors.Is(err, subscriber.ErrUpToDate) {
			break
		}
		if err != nil {
			fl.t.Fatalf("after %v: %v", fl.steps, err)
		}
	}
	if !slices.Equal(fl.steps, want) {
		fl.t.Fatalf("applied %q, want %q", fl.steps, want)
	}
}

// fails checks that nothing leads on now.
func (fl *following) fails() {
	fl.t.Helper()
	if err := fl.step(); !errors.Is(err, subscriber.ErrNoBase) || errors.Is(err, subscriber.ErrUpToDate) {
		fl.t.Fatalf("got %v, want an ErrNoBase that is not ErrUpToDate", err)
	}
}

// audit makes the next call list everything.
func (fl *following) audit() { fl.f.audited = time.Time{} }

// begin replaces the archive's content and the history that is put from now on.
func (fl *following) begin(cfg history.Config, n int) {
	fl.t.Helper()
	if _, err := objstore.DeletePrefix(fl.t.Context(), fl.store, "app/"); err != nil {
		fl.t.Fatal(err)
	}
	cfg.Start = fl.h.Last().Time.Add(time.Minute)
	fl.h = history.New(fl.t, cfg)
	fl.h.Grow(fl.t, n)
}

// TestFollow: the ordinary days of a follower, of archives with and without
// database checksums.
func TestFollow(t *testing.T) {
	t.Parallel()
	for _, bare := range []bool{false, true} {
		t.Run(fmt.Sprintf("NoChecksums=%t", bare), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, history.Config{Seed: 20, NoChecksums: bare}, 40)
			fl := w.follow(t)
			fl.fails() // empty
			w.put(t, "0:1-1")
			fl.catchUp("full 1-1")
			w.put(t, "0:2-2", "0:3-3")
			fl.catchUp("2-3")
			w.put(t, "1:1-3", "0:4-4", "1:4-4")
			fl.catchUp("4-4")
			fl.restart(fl.f.StateDir)
			fl.catchUp()
			w.put(t, "0:5-5")
			fl.catchUp("5-5")

			// While it is down: level 0 is cut off, level 1 goes on from inside.
			w.put(t, "0:6-6", "1:5-9", "9:1-9", "0:10-10", "0:11-11")
			for _, gone := range []string{"0:1-1", "0:2-2", "0:3-3", "0:4-4", "0:5-5", "0:6-6"} {
				w.remove(t, gone)
			}
			fl.restart(fl.f.StateDir)
			fl.catchUp("5-11")

			// Its next TXID is gone: the whole database, in place.
			w.put(t, "9:1-20", "1:20-22", "0:23-23")
			for _, gone := range []string{"0:10-10", "0:11-11", "1:1-3", "1:4-4", "1:5-9", "9:1-9"} {
				w.remove(t, gone)
			}
			fl.catchUp("full 1-23")
			w.put(t, "0:24-24")
			fl.catchUp("24-24")
		})
	}
}

// TestFollowUnknownPosition: without its note a follower takes changes only where
// checksums prove that they are the right ones.
func TestFollowUnknownPosition(t *testing.T) {
	t.Parallel()
	for _, bare := range []bool{false, true} {
		w := newWorld(t, history.Config{Seed: 21, NoChecksums: bare}, 12)
		w.put(t, "9:1-4", "0:5-5", "0:6-6", "0:7-7")
		fl := w.follow(t)
		fl.pos = w.at(5)
		want := "6-7"
		if bare {
			want = "full 1-7"
		}
		fl.catchUp(want)
		fl.restart(t.TempDir())
		if w.put(t, "0:8-8"); bare {
			fl.catchUp("full 1-8")
		} else {
			fl.catchUp("8-8")
		}
		if fl.restart(t.TempDir()); bare { // nothing is newer, and the position may be another's
			fl.catchUp("full 1-8")
		}
		fl.catchUp()
	}
}

// TestFollowAnotherHistory: what began anew in the archive is never taken for what
// follows, wherever its TXIDs are.
func TestFollowAnotherHistory(t *testing.T) {
	t.Parallel()
	for _, bare := range []bool{false, true} {
		for _, restarted := range []bool{false, true} {
			for name, tt := range map[string]struct {
				put  []string
				want string
			}{
				"behind":         {[]string{"9:1-3", "0:4-4", "0:5-5"}, "full 1-5"},
				"same":           {[]string{"9:1-8", "0:9-9", "0:10-10"}, "full 1-10"},
				"ahead":          {[]string{"9:1-9", "0:10-10", "0:11-11", "0:12-12"}, "full 1-12"},
				"ahead, cut off": {[]string{"9:1-11", "0:11-11", "0:12-12"}, "full 1-12"},
				"ahead, merged":  {[]string{"9:1-8", "1:9-12"}, "full 1-12"},
			} {
				t.Run(fmt.Sprintf("%s, NoChecksums=%t, restarted=%t", name, bare, restarted), func(t *testing.T) {
					t.Parallel()
					w := newWorld(t, history.Config{Seed: 22, NoChecksums: bare}, 10)
					w.put(t, "9:1-8", "0:9-9", "0:10-10")
					fl := w.follow(t)
					fl.catchUp("full 1-10")
					fl.begin(history.Config{Seed: 23, NoChecksums: bare}, 12)
					w.put(t, tt.put...)
					if restarted {
						fl.restart(fl.f.StateDir)
					}
					fl.audit()
					fl.catchUp(tt.want)
					if fl.h.Len() > fl.pos.TXID { // and goes on in it
						w.put(t, fmt.Sprintf("0:%d-%d", fl.pos.TXID+1, fl.pos.TXID+1))
						fl.catchUp(fmt.Sprintf("%d-%d", fl.pos.TXID+1, fl.pos.TXID+1))
					}
				})
			}
		}
	}
}

// TestFollowAheadOfTheArchive: an archive that lost its end is waited for, and
// taken up again.
func TestFollowAheadOfTheArchive(t *testing.T) {
	t.Parallel()
	for _, bare := range []bool{false, true} {
		w := newWorld(t, history.Config{Seed: 24, NoChecksums: bare}, 12)
		w.put(t, "9:1-4", "0:5-5", "0:6-6", "0:7-7", "0:8-8")
		fl := w.follow(t)
		fl.catchUp("full 1-8")
		w.remove(t, "0:7-7")
		w.remove(t, "0:8-8")
		fl.audit()
		fl.fails()
		fl.restart(fl.f.StateDir)
		fl.fails()
		w.put(t, "0:7-7", "0:8-8")
		fl.catchUp()
		w.put(t, "0:9-9")
		fl.catchUp("9-9")
	}
}

// TestFollowEmptied: an archive without files is no reason to drop the replica.
func TestFollowEmptied(t *testing.T) {
	t.Parallel()
	w := newWorld(t, history.Config{Seed: 25, NoChecksums: true}, 6)
	w.put(t, "9:1-4")
	fl := w.follow(t)
	fl.catchUp("full 1-4")
	w.remove(t, "9:1-4")
	fl.audit()
	fl.fails()
	w.put(t, "9:1-4", "0:5-5")
	fl.catchUp("5-5")
}

// TestFollowNotedButNotApplied: the note of a base that never was applied does not
// speak for the position before it.
func TestFollowNotedButNotApplied(t *testing.T) {
	t.Parallel()
	w := newWorld(t, history.Config{Seed: 26, NoChecksums: true}, 12)
	w.put(t, "9:1-4", "0:5-5")
	fl := w.follow(t)
	fl.catchUp("full 1-5")
	w.put(t, "0:6-6")
	before := fl.pos
	if err := fl.step(); err != nil {
		t.Fatal(err)
	}
	fl.pos = before // killed
	fl.restart(fl.f.StateDir)
	fl.catchUp("6-6")

	before = fl.pos
	fl.begin(history.Config{Seed: 27, NoChecksums: true}, 12)
	w.put(t, "9:1-6") // another history with the same TXID
	fl.audit()
	if err := fl.step(); err != nil {
		t.Fatal(err)
	}
	fl.pos = before
	fl.restart(fl.f.StateDir)
	w.put(t, "0:7-7")
	fl.catchUp("full 1-7")
}

// TestFollowDamage: a damaged file is gone around, or waited for.
func TestFollowDamage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, history.Config{Seed: 28, NoChecksums: true}, 12)
	w.put(t, "9:1-4", "0:5-5")
	fl := w.follow(t)
	fl.catchUp("full 1-5")
	w.put(t, "0:6-6", "0:7-7", "1:5-7")
	w.spoil(t, "0:6-6", ltx.HeaderSize+20)
	fl.catchUp("5-7")
	w.put(t, "0:8-8")
	w.spoil(t, "0:8-8", ltx.HeaderSize+20)
	for range 3 {
		if err := fl.step(); !errors.Is(err, subscriber.ErrUpToDate) && !errors.Is(err, subscriber.ErrNoBase) {
			t.Fatalf("a damaged file: %v", err)
		}
	}
	w.remove(t, "0:8-8")
	w.put(t, "0:8-8")
	fl.catchUp("8-8")
	if err := os.WriteFile(fl.f.path(), []byte("{"), 0o644); err != nil { // its own note
		t.Fatal(err)
	}
	w.put(t, "0:9-9")
	fl.catchUp("full 1-9")
}

// TestFollowVanish: files that go while they are looked at cost another look.
func TestFollowVanish(t *testing.T) {
	t.Parallel()
	w := newWorld(t, history.Config{Seed: 29, NoChecksums: true}, 12)
	w.put(t, "9:1-4", "0:5-5")
	fl := w.follow(t)
	fl.catchUp("full 1-5")
	w.put(t, "0:6-6", "0:7-7")
	fl.f.Archive = levels.New(&retention{Store: w.store, do: func() {
		w.put(t, "1:5-7", "0:8-8")
		w.remove(t, "0:5-5")
		w.remove(t, "0:6-6")
		w.remove(t, "0:7-7")
	}}, levels.Decimal)
	fl.catchUp("5-8")
}

// TestFollowManyFiles: a long way is gone in pieces.
func TestFollowManyFiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t, history.Config{Seed: 30, NoChecksums: true, MaxBlob: 100}, 2*maxInputs+10)
	for txid := range w.h.Len() {
		w.put(t, fmt.Sprintf("0:%d-%d", txid+1, txid+1))
	}
	fl := w.follow(t)
	fl.catchUp(fmt.Sprintf("full 1-%d", maxInputs), fmt.Sprintf("%d-%d", maxInputs+1, 2*maxInputs), fmt.Sprintf("%d-%d", 2*maxInputs+1, 2*maxInputs+10))
}

// counting counts requests.
type counting struct {
	objstore.Store
	lists, gets, stats int
}

func (c *counting) List(ctx context.Context, prefix, after string) iter.Seq2[objstore.Info, error] {
	c.lists++
	return c.Store.List(ctx, prefix, after)
}

func (c *counting) Get(ctx context.Context, key string, offset, size int64) (io.ReadCloser, error) {
	c.gets++
	return c.Store.Get(ctx, key, offset, size)
}

func (c *counting) Stat(ctx context.Context, key string) (objstore.Info, error) {
	c.stats++
	return c.Store.Stat(ctx, key)
}

// TestFollowRequests holds the requests that the documentation names.
func TestFollowRequests(t *testing.T) {
	t.Parallel()
	w := newWorld(t, history.Config{Seed: 31, NoChecksums: true}, 12)
	w.put(t, "9:1-4", "0:5-5")
	fl := w.follow(t)
	count := &counting{Store: w.store}
	fl.f.Archive = levels.New(count, levels.Decimal)
	fl.catchUp("full 1-5")
	*count = counting{Store: w.store}
	fl.catchUp()
	if count.lists != 2 || count.gets+count.stats != 0 {
		t.Errorf("nothing new: %d lists, %d gets, %d stats", count.lists, count.gets, count.stats)
	}
	w.put(t, "0:6-6", "0:7-7")
	*count = counting{Store: w.store}
	if err := fl.step(); err != nil {
		t.Fatal(err)
	}
	if count.lists != 2 || count.gets != 4 || count.stats != 0 { // first header, proof, two files
		t.Errorf("two new files: %d lists, %d gets, %d stats", count.lists, count.gets, count.stats)
	}
}

func TestFollowEnded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, history.Config{Seed: 32, NoChecksums: true}, 6)
	w.put(t, "9:1-4")
	fl := w.follow(t)
	fl.catchUp("full 1-4")
	w.put(t, "0:5-5")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := fl.f.Base(ctx, "app", fl.pos); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want context.Canceled", err)
	}
	if _, err := fl.f.Base(t.Context(), "a/b", fl.pos); err == nil {
		t.Error("a name that is none")
	}
	fl.catchUp("5-5")
}
