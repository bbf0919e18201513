package capture

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

// While a disk is slow to take the file that a sync waits for, the WAL is read on,
// and the sync is answered when the file is there.
func TestWALIsReadDuringASync(t *testing.T) {
	a := newApp(t, sqlconn.Options{}, 1)
	var slow atomic.Bool
	arrived, released := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(released) })
	r := run(t, Config{Path: a.path, Crash: func(label string) {
		if label == "spool" && slow.CompareAndSwap(true, false) {
			close(arrived)
			<-released
		}
	}}, &shadow{})
	t.Cleanup(release)
	before := r.settle()
	slow.Store(true)
	a.exec("INSERT INTO a(v) VALUES (randomblob(1000000))")
	type answer struct {
		txid uint64
		err  error
	}
	answered := make(chan answer, 1)
	go func() {
		pos, err := r.c.Sync(t.Context())
		answered <- answer{uint64(pos.TXID), err}
	}()
	<-arrived
	frames := r.c.Stats().WALFrames
	a.update(20)
	await(t, "the frames to be read meanwhile", func() bool { return r.c.Stats().WALFrames > frames })
	select {
	case got := <-answered:
		t.Errorf("sync was answered before its file was there: %+v", got)
	default:
	}
	release()
	if got := <-answered; got.err != nil || got.txid <= uint64(before.TXID) {
		t.Errorf("sync returned %+v, it was at %s before", got, before)
	}
	r.settle()
	r.equal(a.path)
	if n := r.c.Stats().Comparisons; n != 1 {
		t.Errorf("%d comparisons", n)
	}
}
