package atomicfile

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWrite(t *testing.T) {
	for name, write := range map[string]func(string, []byte) error{"unsynced": Write, "synced": WriteSynced} {
		dir := t.TempDir()
		path := filepath.Join(dir, "f")
		if err := os.WriteFile(path+Suffix, []byte("what a kill left, longer"), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, content := range []string{"first", "2"} {
			if err := write(path, []byte(content)); err != nil {
				t.Fatal(err)
			}
			if b, err := os.ReadFile(path); err != nil || string(b) != content {
				t.Errorf("%s: %q, %v", name, b, err)
			}
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
			t.Errorf("%s: %v, %v", name, left, err)
		}
		if err := write(filepath.Join(dir, "missing", "f"), nil); err == nil {
			t.Errorf("%s: written where there is no directory", name)
		}
	}
}
