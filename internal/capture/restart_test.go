package capture

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/internal/wal"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

// slowDisk is one that takes so long for each sync.
type slowDisk struct {
	sync  time.Duration
	syncs atomic.Int64
}

func (d *slowDisk) crash(label string) {
	if label == "sync" {
		d.syncs.Add(1)
		time.Sleep(d.sync)
	}
}

// onSlowDisk captures the database of an application that never checkpoints.
func onSlowDisk(t *testing.T, sync time.Duration, softLimit int64) (*app, *running, *slowDisk) {
	t.Helper()
	a := newApp(t, sqlconn.Options{AutoCheckpoint: -1}, 1)
	d := &slowDisk{sync: sync}
	r := run(t, Config{Path: a.path, SoftWALLimit: softLimit, Crash: d.crash}, &shadow{})
	r.settle()
	return a, r, d
}

// times returns how many times its soft limit the WAL has reached.
func (r *running) times() int64 {
	r.t.Helper()
	h, err := r.c.db.Header()
	must(r.t, err)
	return int64(h.MaxFrame) * (wal.FrameHeaderSize + int64(h.PageSize)) / r.c.cfg.SoftWALLimit
}

// However long the disk takes: up to 16 times the soft limit no writer waits for it,
// and its next pause is enough for the WAL to be restarted.
func TestWritersDoNotWaitForTheDisk(t *testing.T) {
	t.Parallel()
	const sync = 500 * time.Millisecond
	a, r, d := onSlowDisk(t, sync, 1<<20)
	restarts := r.c.Stats().Restarts
	for _, at := range []int64{forceAt, fillAt} {
		for r.times() < at {
			a.update(1)
		}
		seen, pause := d.syncs.Load(), sync/100
		for d.syncs.Load() < seen+5 { // a backfill, and what follows it
			if a.update(1); r.times() > at+1 {
				pause = sync / 8 // that stays below giveUpAt for a minute, and is none to backfill in
			}
			time.Sleep(pause)
		}
		if n := r.times(); n >= giveUpAt {
			t.Fatalf("the WAL is at %d times its soft limit already", n)
		}
	}
	await(t, "a restart", func() bool { return r.c.Stats().Restarts > restarts })
	a.update(5)
	r.settle()
	r.equal(a.path)
	if s := r.c.Stats(); s.MaxWriteHold > sync*4/5 {
		t.Errorf("WRITE was held for %s", s.MaxWriteHold)
	}
}

// A writer that never pauses waits for it there: the WAL is restarted all the same.
func TestWALOfAWriterThatNeverPauses(t *testing.T) {
	t.Parallel()
	a, r, d := onSlowDisk(t, 200*time.Millisecond, 64<<10)
	restarts := r.c.Stats().Restarts
	for tick := time.NewTicker(time.Millisecond); r.c.Stats().Restarts == restarts; <-tick.C {
		a.update(1)
		if n := d.syncs.Load(); n > 40 {
			t.Fatalf("%d syncs, and a WAL of %d times its soft limit", n, r.times())
		}
	}
	t.Logf("%+v after %d syncs", r.c.Stats(), d.syncs.Load())
	r.settle()
	r.equal(a.path)
}
