package e2e

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestGuaranteesNameRealTests holds the documents that name tests against those.
func TestGuaranteesNameRealTests(t *testing.T) {
	t.Parallel()
	have := testsIn(t, "..")
	named := map[string]bool{} // as guarantees
	for doc, least := range map[string]int{"guarantees.md": 50, "traps.md": 50, "litestream.md": 10} {
		tests := namedIn(t, "../docs/"+doc)
		if len(tests) < least {
			t.Errorf("only %d tests are named in %s", len(tests), doc)
		}
		for name := range tests {
			if !have[name] {
				t.Errorf("%s: there is no test %s", doc, name)
			}
			named[name] = named[name] || doc != "traps.md"
		}
	}
	for name := range have {
		plain := name == "e2e.TestMain" || name == "e2e.TestReplicatesBankTransfers" || name == "e2e.TestGuaranteesNameRealTests"
		if strings.HasPrefix(name, "e2e.") && !plain && !named[name] {
			t.Errorf("%s holds no guarantee", name)
		}
		if strings.HasPrefix(name, "ltx-archive.") && strings.Contains(name, "Litestream") && !named[name] {
			t.Errorf("docs/litestream.md does not name %s", name)
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
