package atomicfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Suffix of a file that has not got its name yet.
const Suffix = ".tmp"

// Write makes b the content of the file at path. It outlives the process; a power
// loss may lose it, or leave nothing of the content.
func Write(path string, b []byte) error {
	if err := os.WriteFile(path+Suffix, b, 0o644); err != nil {
		return err
	}
	return os.Rename(path+Suffix, path)
}

// WriteSynced is Write for what must outlive a power loss: write, fsync, rename,
// fsync of the directory.
func WriteSynced(path string, b []byte) error {
	f, err := os.Create(path + Suffix)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+Suffix, path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes the names in a directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}
