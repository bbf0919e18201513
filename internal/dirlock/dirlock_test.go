package dirlock

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTake(t *testing.T) {
	dir := t.TempDir()
	first, err := Take(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Take(dir)
	if held, ok := errors.AsType[*HeldError](err); !ok || held.PID != os.Getpid() {
		t.Fatalf("%v, want that process %d has it", err, os.Getpid())
	}
	if err := os.Truncate(filepath.Join(dir, "lock"), 0); err != nil {
		t.Fatal(err)
	}
	_, err = Take(dir)
	if held, ok := errors.AsType[*HeldError](err); !ok || held.PID != 0 || !strings.Contains(err.Error(), "another process") {
		t.Fatalf("%v, want that somebody has it", err)
	}
	if err := first.Release(); err != nil {
		t.Fatal(err)
	}
	again, err := Take(dir) // the file is there still
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Release(); err != nil {
		t.Fatal(err)
	}
}

func TestTakeNothing(t *testing.T) {
	_, err := Take(filepath.Join(t.TempDir(), "missing"))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if err := (*Lock)(nil).Release(); err != nil {
		t.Fatal(err)
	}
}
