package capture

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/testenv/sqlconn"
	"github.com/superfly/ltx"
)

// captured is a database of which something was captured, and nothing runs.
func captured(t *testing.T) (*app, *shadow, ltx.Pos) {
	t.Helper()
	a := newApp(t, sqlconn.Options{}, 1)
	r := run(t, Config{Path: a.path}, &shadow{})
	a.update(5)
	pos := r.settle()
	r.equal(a.path)
	r.stop()
	return a, r.shadow, pos
}

// at opens a copy of the state as it is when label is reached within do.
func at(t *testing.T, a *app, label string, do func(c *Capture) error) *Capture {
	t.Helper()
	saved := filepath.Join(t.TempDir(), "state")
	c, err := Open(t.Context(), Config{Path: a.path, Logger: quiet(t), Crash: func(l string) {
		if l == label {
			must(t, os.CopyFS(saved, os.DirFS(StateDir(a.path))))
		}
	}})
	must(t, err)
	must(t, do(c), c.Close())
	c, err = Open(t.Context(), Config{Path: a.path, StateDir: saved, Logger: quiet(t)})
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })
	return c
}

// TestReseedIsDurable: whatever a run leaves that ends within Reseed, the next
// one begins as it would have gone on.
func TestReseedIsDurable(t *testing.T) {
	t.Parallel()
	for _, label := range []string{"joined", "cleared"} {
		t.Run(label, func(t *testing.T) {
			t.Parallel()
			a, _, pos := captured(t)
			pos.TXID += 10
			end := ltx.NewPos(3, ltx.ChecksumFlag|7)
			c := at(t, a, label, func(c *Capture) error { return c.Reseed(pos, End{Pos: end}) })
			if c.Pos() != pos || !c.fullWanted() || c.Joined() != end {
				t.Fatalf("at %s, full %v, joined %s", c.Pos(), c.fullWanted(), c.Joined())
			}
			if _, ok := c.spool.last(); ok {
				t.Fatal("the spool holds something")
			}
		})
	}
}

// TestAdoptIsDurable: what was proved once need not be proved again.
func TestAdoptIsDurable(t *testing.T) {
	t.Parallel()
	for _, label := range []string{"joined", "cleared", "cursor"} {
		t.Run(label, func(t *testing.T) {
			t.Parallel()
			a, _, pos := captured(t)
			pos.TXID += 10
			c := at(t, a, label, func(c *Capture) error { return c.Adopt(t.Context(), End{Pos: pos}) })
			if c.Pos() != pos || c.Joined() != pos || c.fullWanted() != (label != "cursor") {
				t.Fatalf("at %s, want %s; joined %s, full %v", c.Pos(), pos, c.Joined(), c.fullWanted())
			}
		})
	}
}

// TestDamagedJunctionIsNotBelieved: what it says counts whole or not at all.
func TestDamagedJunctionIsNotBelieved(t *testing.T) {
	t.Parallel()
	a, _, pos := captured(t)
	whole := junction{end: End{Pos: pos}, pos: ltx.NewPos(pos.TXID+10, ltx.ChecksumFlag), full: true}.encode()
	open := func(b []byte) ltx.Pos {
		must(t, os.WriteFile(filepath.Join(StateDir(a.path), junctionName), b, 0o644))
		c, err := Open(t.Context(), Config{Path: a.path, Logger: quiet(t)})
		must(t, err)
		defer func() { must(t, c.Close()) }()
		return c.Pos()
	}
	for i := range whole {
		flipped := append([]byte(nil), whole...)
		flipped[i] ^= 1
		for _, b := range [][]byte{whole[:i], flipped} {
			if _, ok := parseJunction(b); ok {
				t.Errorf("believed %x", b)
			}
		}
	}
	for _, b := range [][]byte{nil, whole[:20], make([]byte, junctionSize)} {
		if got := open(b); got != pos {
			t.Errorf("at %s after %x", got, b)
		}
	}
	if got := open(whole); got.TXID != pos.TXID+10 {
		t.Errorf("at %s after a whole one", got)
	}
}

// TestJunctionEndsWithTheAcknowledgement: not before, and it is gone then.
func TestJunctionEndsWithTheAcknowledgement(t *testing.T) {
	t.Parallel()
	a, s, pos := captured(t)
	c, err := Open(t.Context(), Config{Path: a.path, Logger: quiet(t)})
	must(t, err, c.Reseed(pos, End{Pos: pos}), c.Acked(pos.TXID))
	if c.Joined() != pos {
		t.Error("gone at once")
	}
	must(t, c.Close())
	r := run(t, Config{Path: a.path}, s)
	r.settle()
	r.equal(a.path)
	if s.fulls != 2 {
		t.Errorf("%d full files", s.fulls)
	}
	must(t, r.c.Acked(pos.TXID+1))
	if _, err := os.Stat(filepath.Join(StateDir(a.path), junctionName)); !os.IsNotExist(err) || r.c.Joined() != (ltx.Pos{}) {
		t.Errorf("joined %s, stat: %v", r.c.Joined(), err)
	}
}

// TestTimestampsGoOnFromTheStream: its last file may be of a clock that is ahead
// of ours, and the next run knows that too.
func TestTimestampsGoOnFromTheStream(t *testing.T) {
	t.Parallel()
	ahead := time.UnixMilli(time.Now().Add(time.Hour).UnixMilli())
	for name, join := range map[string]func(c *Capture, pos ltx.Pos) error{
		"adopt":  func(c *Capture, pos ltx.Pos) error { return c.Adopt(t.Context(), End{Pos: pos, Time: ahead}) },
		"reseed": func(c *Capture, pos ltx.Pos) error { return c.Reseed(pos, End{Pos: pos, Time: ahead}) },
	} {
		for _, again := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " again=", again), func(t *testing.T) {
				t.Parallel()
				a, _, pos := captured(t)
				open := func() *Capture {
					c, err := Open(t.Context(), Config{Path: a.path, Logger: quiet(t)})
					must(t, err)
					return c
				}
				c := open()
				must(t, join(c, pos))
				if again {
					must(t, c.Close())
					c = open()
				}
				a.update(1)
				f := first(t, c, pos.TXID)
				if got := time.UnixMilli(f.Header.Timestamp); got.Before(ahead) {
					t.Errorf("file of %s behind one of %s", got, ahead)
				}
			})
		}
	}
}

// first runs c until there is a file beyond txid, and closes it.
func first(t *testing.T, c *Capture, txid ltx.TXID) File {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := c.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	f, err := c.Next(ctx, txid)
	cancel()
	wg.Wait()
	must(t, err, c.Close())
	return f
}

func FuzzJunction(f *testing.F) {
	f.Add(junction{pos: ltx.NewPos(7, 3), full: true}.encode())
	f.Fuzz(func(t *testing.T, in []byte) {
		if j, ok := parseJunction(in); ok && string(j.encode()) != string(in) {
			t.Errorf("%x became %+v", in, j)
		}
	})
}
