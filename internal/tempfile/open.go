package tempfile

import (
	"errors"
	"os"
)

// Open makes a file for reading and writing in dir, "" means os.TempDir, and
// removes its name, which was made of pattern as os.CreateTemp does. Close frees
// it. Safe for concurrent use.
func Open(dir, pattern string) (*os.File, error) {
	f, err := os.CreateTemp(dir, pattern)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
