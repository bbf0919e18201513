package storage

import (
	"os"
	"path/filepath"
	"testing"
)

// folder is where `make servers` puts what it fetches, relative to the module.
const folder = ".servers"

// Find returns the path of a fetched file, given relative to .servers/. Where
// it is missing the test is skipped, or fails under CI.
func Find(t testing.TB, rel string) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above the working directory")
		}
	}
	path := filepath.Join(dir, folder, filepath.FromSlash(rel))
	if _, err := os.Stat(path); err != nil {
		Missing(t, rel, "make servers")
	}
	return path
}

// Missing skips the test, or fails it under CI, because of a server that is not
// installed; how is the command that installs it.
func Missing(t testing.TB, what, how string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is missing: %s", what, how)
	}
	t.Skipf("%s is missing, to run this test: %s", what, how)
}
