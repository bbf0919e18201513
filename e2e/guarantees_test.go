package e2e

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestGuaranteesNameRealTests holds docs/guarantees.md and docs/traps.md against
// the tests that they name.
func TestGuaranteesNameRealTests(t *testing.T) {
	t.Parallel()
	have := testsIn(t, "..")
	named := namedIn(t, "../docs/guarantees.md")
	for _, doc := range []map[string]bool{named, namedIn(t, "../docs/traps.md")} {
		if len(doc) < 50 {
			t.Errorf("only %d tests are named", len(doc))
		}
		for name := range doc {
			if !have[name] {
				t.Errorf("there is no test %s", name)
			}
		}
	}
	for name := range have {
		plain := name == "e2e.TestMain" || name == "e2e.TestReplicatesBankTransfers" || name == "e2e.TestGuaranteesNameRealTests"
		if strings.HasPrefix(name, "e2e.") && !plain && !named[name] {
			t.Errorf("%s holds no guarantee", name)
		}
	}
}

// namedIn returns the tests that a document names, as package.Test.
func namedIn(t *testing.T, path string) map[string]bool {
	t.Helper()
	doc, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{}
	for _, n := range regexp.MustCompile("`([a-z0-9-]+\\.(?:Test|Fuzz)[A-Za-z0-9]+)`").FindAllStringSubmatch(string(doc), -1) {
		named[n[1]] = true
	}
	return named
}

// testsIn returns the tests below root as package.Test.
func testsIn(t *testing.T, root string) map[string]bool {
	t.Helper()
	have := map[string]bool{}
	funcs := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Za-z0-9]+)\(`)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		abs, err := filepath.Abs(path)
		for _, f := range funcs.FindAllSubmatch(b, -1) {
			have[filepath.Base(filepath.Dir(abs))+"."+string(f[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return have
}
