package litestream

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// processes returns those called litestream that have a file open, and those of
// which that cannot be told. Where there is no /proc it finds none.
func processes(path string) (open, unknown []int, err error) {
	file, err := os.Stat(path)
	if err != nil {
		return nil, nil, fmt.Errorf("look at %s: %w", path, err)
	}
	names, _ := filepath.Glob("/proc/[0-9]*/comm") // the pattern is well formed
	for _, name := range names {
		comm, err := os.ReadFile(name)
		if err != nil || !isLitestream(strings.TrimSpace(string(comm))) {
			continue // or it has ended
		}
		dir := filepath.Dir(name)
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		switch has, err := hasOpen(filepath.Join(dir, "fd"), file); {
		case errors.Is(err, fs.ErrPermission):
			unknown = append(unknown, pid)
		case has:
			open = append(open, pid)
		}
	}
	return open, unknown, nil
}

// isLitestream knows it by its name, with a version behind it perhaps; the system
// keeps 15 characters.
func isLitestream(comm string) bool {
	return comm == "litestream" || strings.HasPrefix(comm, "litestream-")
}

// hasOpen looks for a file among the descriptors in a folder of /proc.
func hasOpen(dir string, file os.FileInfo) (bool, error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if st, err := os.Stat(filepath.Join(dir, e.Name())); err == nil && os.SameFile(st, file) {
			return true, nil
		}
	}
	return false, err
}
