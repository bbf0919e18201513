package restore

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestNewOutput: what an earlier restore left, of whatever format, is not taken for
// the new one's; the final name comes with Finish, and Discard does not touch what
// another restore began since.
func TestNewOutput(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "out.db")
	there := func(want ...string) {
		t.Helper()
		entries, err := os.ReadDir(dir)
		var have []string
		for _, e := range entries {
			have = append(have, e.Name())
		}
		if err != nil || !slices.Equal(have, want) {
			t.Fatalf("%v, %v, want %v", have, err, want)
		}
	}
	for _, name := range []string{".out.db.restore", ".out.db.restore-log", "out.db-wal"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := NewOutput(path, true)
	if err != nil {
		t.Fatal(err)
	}
	there(".out.db.restore", "out.db-wal")
	if _, err := NewOutput(path, true); !errors.Is(err, ErrBusy) {
		t.Errorf("a second one: %v", err)
	}
	if st, err := out.File.Stat(); err != nil || st.Size() != 0 {
		t.Fatalf("%v, %v", st, err)
	}
	if _, err := out.WriteAt([]byte("new"), 0); err != nil {
		t.Fatal(err)
	}
	if err := out.Finish(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	there("out.db")
	other, err := NewOutput(path, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(out.Discard(), out.Close()); err != nil {
		t.Fatal(err)
	}
	there(".out.db.restore", "out.db")
	if err := errors.Join(other.Discard(), other.Close()); err != nil {
		t.Fatal(err)
	}
	there("out.db")
	if b, err := os.ReadFile(path); err != nil || string(b) != "new" {
		t.Errorf("%q, %v", b, err)
	}
}
