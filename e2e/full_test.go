package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/bank"
	"github.com/ltxstream/ltxstream/testenv/child"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

// disk is a small file system of its own.
type disk struct {
	t   testing.TB
	dir string
}

// newDisk mounts one of size bytes. Where that is not allowed the test is
// skipped: no limit of a process is like a disk on which nothing fits.
func newDisk(t testing.TB, size int64) *disk {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("a full disk needs tmpfs")
	}
	d := &disk{t: t, dir: t.TempDir()}
	if err := unix.Mount("tmpfs", d.dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=755", size)); err != nil {
		t.Skipf("a full disk needs a mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(d.dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return d
}

func (d *disk) ballast() string { return filepath.Join(d.dir, "ballast") }

// leave fills the disk up to free bytes.
func (d *disk) leave(free int64) {
	d.t.Helper()
	f, err := os.OpenFile(d.ballast(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 64<<10); d.free() > free; {
		if _, err := f.Write(block[:min(int64(len(block)), d.free()-free)]); err != nil && !errors.Is(err, unix.ENOSPC) {
			d.t.Fatal(err)
		}
	}
}

func (d *disk) free() int64 {
	d.t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(d.dir, &st); err != nil {
		d.t.Fatal(err)
	}
	return int64(st.Bavail) * int64(st.Bsize)
}

func (d *disk) clear() {
	d.t.Helper()
	if err := os.Remove(d.ballast()); err != nil && !errors.Is(err, os.ErrNotExist) {
		d.t.Fatal(err)
	}
}

// fullDisk is a stage with one of its sides on a small disk.
type fullDisk struct {
	stage
	disk   *disk
	server *child.Process // the product's own
}

// where says what is on the small disk.
type where struct{ state, primary, replica, server bool }

func newFullDisk(t *testing.T, w where) *fullDisk {
	t.Helper()
	s := &fullDisk{disk: newDisk(t, 160<<20)}
	s.t, s.f = t, paths(t)
	store := filepath.Join(s.f.dir, "nats")
	pub, sub := roleSpec{DB: appDB}, roleSpec{DB: appDB}
	switch {
	case w.state:
		pub.StateDir = filepath.Join(s.disk.dir, "state")
	case w.primary:
		s.f.primary = filepath.Join(s.disk.dir, "app.db")
	case w.replica:
		s.f.replica = filepath.Join(s.disk.dir, "app.db")
	case w.server:
		store = filepath.Join(s.disk.dir, "nats")
	}
	url := child.NewReports("", nil)
	var err error
	if s.server, err = child.Start("e2e-server", serverSpec{Dir: store, Listen: "127.0.0.1:0"}, url.Line); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.server.Kill)
	at, err := url.WaitFor(t.Context(), s.server, func(u string) (bool, error) { return u != "", nil })
	if err != nil {
		t.Fatal(err)
	}
	s.js = testenv.JetStream(t, testenv.Connect(t, at))
	_, _ = testenv.Bank(t, s.f.primary, sqlconn.WAL(), 1)
	pub.URL, pub.Path, sub.URL, sub.Path = at, s.f.primary, at, s.f.replica
	s.pub = runRole[pubReport](t, "e2e-publisher", pub)
	s.sub = runRole[subReport](t, "e2e-subscriber", sub)
	settleChildren(t, s.pub, s.sub)
	return s
}

// alive fails the test when a process has ended: a full disk ends nobody.
func (s *fullDisk) alive() {
	s.t.Helper()
	for name, p := range map[string]*child.Process{"publisher": s.pub.Process, "subscriber": s.sub.Process, "server": s.server} {
		select {
		case <-p.Done():
			s.t.Fatalf("the %s has ended: %v", name, p.Err())
		default:
		}
	}
}

// stuck waits until somebody says that he cannot go on, or all went through.
func (s *fullDisk) stuck() string {
	s.t.Helper()
	said := ""
	testenv.Until(s.t, patience, "an error that says so, or the end", func() error {
		s.alive()
		pub, _ := s.pub.reports.Last()
		sub, _ := s.sub.reports.Last()
		if said = pub.Status.Error + sub.Status.Error; said != "" {
			return nil
		}
		want, err := lastSeq(s.t, s.f.primary)
		if err != nil {
			return err
		}
		got, err := lastSeq(s.t, s.f.replica)
		if err == nil && got != want {
			err = fmt.Errorf("replica at %d of %d, and nobody says why: %+v %+v", got, want, pub.Status, sub.Status)
		}
		return err
	})
	return said
}

const noteBytes = 30_000

// commit makes about bytes of transfers. full: they may fail for want of space.
func (s *fullDisk) commit(bytes int64, full bool) (done int, longest time.Duration) {
	s.t.Helper()
	db := testenv.OpenDB(s.t, s.f.primary, patientWAL())
	defer db.Close()
	teller, err := bank.NewTeller(s.t.Context(), db, uint64(bytes), noteBytes)
	if err != nil {
		s.t.Fatal(err)
	}
	defer teller.Close()
	for range bytes / noteBytes {
		began := time.Now()
		_, err := teller.Transfer(context.WithoutCancel(s.t.Context()))
		longest = max(longest, time.Since(began))
		if err == nil {
			done++
		} else if !full {
			s.t.Fatalf("the application was refused: %v", err)
		}
	}
	return done, longest
}

// TestDiskFull: 0, 1, 2 … MB are left on the disk of one side, and the
// application goes on. Nobody ends, somebody says what is wrong, the
// application does not wait; as soon as there is room all goes on by itself, to
// equal replicas, without a new base.
func TestDiskFull(t *testing.T) {
	for name, w := range map[string]where{
		"publisher's state":   {state: true},
		"subscriber":          {replica: true},
		"server":              {server: true},
		"application's files": {primary: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newFullDisk(t, w)
			said := 0
			for mb := range int64(fullSteps) {
				s.disk.leave(mb << 20)
				done, longest := s.commit((mb+2)<<20, w.primary)
				if longest > slowest {
					t.Errorf("%d MB left: the application waited %v", mb, longest)
				}
				what := s.stuck()
				if what != "" {
					said++
				}
				t.Logf("%d MB left: %d commits, longest %v; %s", mb, done, longest, what)
				s.disk.clear()
				s.commit(1<<20, false)
				s.alive()
				equalAt(t, settleChildren(t, s.pub, s.sub), s.f.primary, s.f.replica)
				if t.Failed() {
					t.FailNow()
				}
			}
			if said == 0 {
				t.Error("nobody ever said that a disk is full")
			}
			if last, err := s.sub.reports.Last(); err != nil || last.Status.Reseeds != 0 {
				t.Errorf("the replica was seeded anew: %+v %v", last.Status, err)
			}
			c := count(t, s.js, appDB)
			t.Logf("stream: %+v", c)
			if c.full != 1 {
				t.Errorf("%d full files", c.full)
			}
		})
	}
}
