package embedded

import (
	"fmt"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// storeLimit is the store's bound in bytes. What is used counts as available:
// otherwise a restart on a nearly full disk would refuse what it already holds.
func storeLimit(dir string, configured int64) (int64, error) {
	if configured > 0 {
		return configured, nil
	}
	free, err := freeBytes(dir)
	if err != nil {
		return 0, err
	}
	return min(DefaultMaxStore, usedBytes(dir)+free/4*3), nil
}

func freeBytes(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("stat file system of %s: %w", dir, err)
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}

// usedBytes is a lower bound: files that cannot be read count as nothing.
func usedBytes(dir string) int64 {
	var n int64
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil
		}
		if info, err := d.Info(); err == nil {
			n += info.Size()
		}
		return nil
	})
	return n
}
