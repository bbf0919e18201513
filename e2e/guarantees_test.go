package e2e

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestGuaranteesNameRealTests holds docs/guarantees.md against the tests that
// it names.
func TestGuaranteesNameRealTests(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../docs/guarantees.md")
	if err != nil {
		t.Fatal(err)
	}
	have := testsIn(t, "..")
	names := regexp.MustCompile("`([a-z0-9-]+\\.Test[A-Za-z0-9]+)`").FindAllStringSubmatch(string(doc), -1)
	if len(names) < 50 {
		t.Errorf("only %d tests are named", len(names))
	}
	named := map[string]bool{}
	for _, n := range names {
		if named[n[1]] = true; !have[n[1]] {
			t.Errorf("there is no test %s", n[1])
		}
	}
	for name := range have {
		plain := name == "e2e.TestMain" || name == "e2e.TestReplicatesBankTransfers" || name == "e2e.TestGuaranteesNameRealTests"
		if strings.HasPrefix(name, "e2e.") && !plain && !named[name] {
			t.Errorf("%s holds no guarantee", name)
		}
	}
}

// testsIn returns the tests below root as package.Test.
func testsIn(t *testing.T, root string) map[string]bool {
	t.Helper()
	have := map[string]bool{}
	funcs := regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9]+)\(`)
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
