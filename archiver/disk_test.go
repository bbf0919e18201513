package archiver

import (
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/internal/stream/streamtest"
)

// TestStageDiskFull: where the stage's disk is full what is staged is flushed, and
// the rest follows; nothing is lost or read again and again.
func TestStageDiskFull(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=96k"); err != nil {
		t.Skipf("a small file system cannot be mounted (as root it can): %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	js := streamtest.Connect(t, newServer(t))
	src := newSource(t, js, "app", 41)
	src.publish(t, 120) // several times the disk
	dest := newTarget()
	cfg := quickly(t, js, dest)
	cfg.StageDir, cfg.FlushInterval = dir, time.Minute
	a, stop := start(t, cfg)
	taken(t, a, 1, src.published)
	if n := dest.puts.Load(); n < 3 {
		t.Errorf("%d puts: the disk was never full", n)
	}
	stop()
	reached(t, dest, "app", src.published)
	src.check(t, dest, src.published)
	if left, err := os.ReadDir(dir); err != nil || len(left) > 1 {
		t.Errorf("left on the stage: %v, %v", left, err)
	}
}
