package ltxstream_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/ltxstream/ltxstream"

// imports is the table of packages: what each may import of this module.
// Vocabulary before mechanisms before roles before commands; roles never import
// each other. A name that ends in /... stands for a package and all below it.
// A row may be ahead of its package; a package without a row is a fault.
var imports = map[string][]string{
	".":    {},
	"wire": {},

	// mechanisms
	"internal/wal":        {},
	"internal/keeper":     {},
	"internal/crc64iso":   {},
	"internal/pagesum":    {"internal/crc64iso"},
	"internal/tempfile":   {},
	"internal/atomicfile": {},
	"internal/dirlock":    {},
	"internal/ltxfile":    {"internal/crc64iso", "internal/tempfile"}, // bytes of LTX files: all that read them
	"internal/stream":     {"wire", "internal/ltxfile"},               // shared by publisher, feed, subscriber, archiver
	"internal/capture":    {"internal/atomicfile", "internal/dirlock", "internal/wal", "internal/keeper", "internal/pagesum", "internal/ltxfile"},
	"internal/feed":       {"wire", "internal/stream", "internal/ltxfile", "internal/tempfile"},
	"replica":             {"internal/atomicfile", "internal/wal", "internal/keeper", "internal/pagesum", "internal/ltxfile"},
	"objstore/...":        {"objstore/..."},
	"objstore/levels":     {"objstore"},
	"compactor":           {"internal/ltxfile", "internal/tempfile", "objstore", "objstore/levels"},
	"internal/tail":       {"wire", "internal/feed", "internal/stream", "objstore/...", "compactor"}, // a stream's tail as an archive: restores, and replicas that begin from one
	"embedded":            {"internal/dirlock"},
	"internal/natsconn":   {},
	"internal/daemon":     {"wire"},
	"internal/control":    {"wire", "internal/daemon"}, // the same statuses as the HTTP side

	// what was before us
	"internal/litestream":        {"objstore/levels", "compactor"}, // where an archive of Litestream's ends, and whether it still runs
	"internal/litestream/config": {"wire"},                         // its configuration as ours

	// roles
	"publisher":  {"internal/atomicfile", "wire", "internal/capture", "internal/stream"},
	"subscriber": {"internal/atomicfile", "wire", "internal/dirlock", "internal/feed", "internal/stream", "replica"},
	"archiver":   {"wire", "internal/feed", "internal/ltxfile", "internal/stream", "internal/tempfile", "objstore", "objstore/levels", "compactor"},
	"restore":    {"internal/atomicfile", "internal/ltxfile", "objstore/levels"},

	// the other format of archives that a restore reads; its output is restore's
	"restore/generations": {"internal/wal", "objstore", "objstore/levels", "restore"},

	// what joins two roles: replicas that begin from an archive
	"subscriber/archive": {"internal/atomicfile", "wire", "internal/tempfile", "objstore/levels", "compactor", "restore", "subscriber"},

	// commands, and what only tests use
	"cmd/...":                    {"..."},
	"e2e":                        {"..."},
	"internal/stream/streamtest": {"wire", "internal/stream", "testenv"},
	"testenv/...":                {"testenv/...", "embedded", "wire"},
}

// onlyIn says which packages may import a dependency from outside.
var onlyIn = map[string][]string{
	"github.com/mattn/go-sqlite3":       {"internal/keeper", "replica", "testenv/...", "cmd/..."}, // replica: an empty database to bootstrap into
	"github.com/nats-io/nats-server":    {"embedded", "internal/stream/streamtest", "testenv/..."},
	"github.com/aws/aws-sdk-go-v2":      {"objstore/s3/..."},
	"github.com/aws/smithy-go":          {"objstore/s3/..."},
	"github.com/minio/minio-go":         {"objstore/s3/..."},
	"cloud.google.com/go":               {"objstore/gcs/..."},
	"google.golang.org/api":             {"objstore/gcs/..."},
	"github.com/Azure/azure-sdk-for-go": {"objstore/azure/..."},
	"github.com/pkg/sftp":               {"objstore/sftp/..."},
	"golang.org/x/crypto/ssh":           {"objstore/sftp/..."},
}

// outside limits what some packages may import from outside altogether; the
// standard library is always allowed.
var outside = map[string][]string{
	"wire":              {"github.com/superfly/ltx", "github.com/nats-io/nats.go"},
	"internal/wal":      {"golang.org/x/sys"}, // no driver, no NATS
	"internal/crc64iso": {"golang.org/x/sys"},
	"internal/pagesum":  {"golang.org/x/sys", "github.com/superfly/ltx"},
	"internal/keeper":   {"golang.org/x/sys", "github.com/mattn/go-sqlite3"},
}

// vague names say nothing of what a package owns.
var vague = []string{"utils", "util", "common", "types", "models", "helpers", "misc", "shared"}

// pkg is one package as its files that are no tests show it.
type pkg struct {
	dir     string // relative to the module, with slashes
	name    string
	imports []string
	hasDoc  bool // a doc.go with a package comment
}

func TestArchitecture(t *testing.T) {
	pkgs, err := parsePackages(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	if len(pkgs) < 3 {
		t.Fatalf("found only %d packages", len(pkgs))
	}
	for _, fault := range check(pkgs) {
		t.Error(fault)
	}
}

// parsePackages reads the import clauses of every Go file, for whatever system
// it is built. (The go command would answer from a cache that does not see the
// files change.)
func parsePackages(root fs.FS) ([]pkg, error) {
	found := map[string]*pkg{}
	err := fs.WalkDir(root, ".", func(p string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && p != "." && (strings.HasPrefix(e.Name(), ".") || e.Name() == "testdata" || e.Name() == "vendor"):
			return fs.SkipDir
		case e.IsDir() || !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go"):
			return nil
		}
		src, err := fs.ReadFile(root, p)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), filepath.FromSlash(p), src, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		dir := path.Dir(p)
		if found[dir] == nil {
			found[dir] = &pkg{dir: dir}
		}
		found[dir].add(path.Base(p), f)
		return nil
	})
	var pkgs []pkg
	for _, dir := range slices.Sorted(maps.Keys(found)) {
		pkgs = append(pkgs, *found[dir])
	}
	return pkgs, err
}

func (p *pkg) add(file string, f *ast.File) {
	p.name = f.Name.Name
	p.hasDoc = p.hasDoc || file == "doc.go" && f.Doc != nil
	for _, spec := range f.Imports {
		name, err := strconv.Unquote(spec.Path.Value)
		if err == nil && !slices.Contains(p.imports, name) {
			p.imports = append(p.imports, name)
		}
	}
}

// check returns every breach of the rules above.
func check(pkgs []pkg) (faults []string) {
	for _, p := range pkgs {
		fault := func(what ...string) { faults = append(faults, p.dir+": "+strings.Join(what, " ")) }
		if !p.hasDoc {
			fault("no doc.go with a package comment")
		}
		if slices.Contains(vague, p.name) || slices.Contains(vague, path.Base(p.dir)) {
			fault("the name does not say what the package owns")
		}
		allowed, ok := row(p.dir)
		if !ok {
			fault("no row in the table of imports: add one, with a reason")
		}
		for _, name := range p.imports {
			if ours, ok := within(name, module); ok {
				if !matchesAny(ours, allowed) {
					fault("must not import", ours)
				}
				continue
			}
			checkOutside(p.dir, name, fault)
		}
	}
	return faults
}

func checkOutside(dir, name string, fault func(...string)) {
	first, _, _ := strings.Cut(name, "/")
	if !strings.Contains(first, ".") {
		return // standard library
	}
	if list, limited := outside[dir]; limited && !slices.ContainsFunc(list, func(l string) bool { _, ok := within(name, l); return ok }) {
		fault("must not import", name)
	}
	for dep, places := range onlyIn {
		if _, ok := within(name, dep); ok && !matchesAny(dir, places) {
			fault("must not import", name+": it belongs in", strings.Join(places, ", "))
		}
	}
}

// row returns the row of a package: its own, else that of the nearest /... above.
func row(dir string) ([]string, bool) {
	if r, ok := imports[dir]; ok {
		return r, true
	}
	for up := dir; up != "."; up = path.Dir(up) {
		if r, ok := imports[up+"/..."]; ok {
			return r, true
		}
	}
	return nil, false
}

func matchesAny(name string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		prefix, tree := strings.CutSuffix(p, "...")
		return name == p || tree && (prefix == "" || name == strings.TrimSuffix(prefix, "/") || strings.HasPrefix(name, prefix))
	})
}

// within reports whether the import path name is root or below it, and where.
func within(name, root string) (rel string, ok bool) {
	if name == root {
		return ".", true
	}
	return strings.CutPrefix(name, root+"/")
}

// TestArchitectureRulesCanFail gives check one breach of each rule.
func TestArchitectureRulesCanFail(t *testing.T) {
	good := pkg{dir: "publisher", name: "publisher", hasDoc: true, imports: []string{"context", module + "/wire", "github.com/nats-io/nats.go/jetstream"}}
	with := func(dir string, change func(*pkg)) pkg {
		p := good
		p.dir, p.name, p.imports = dir, path.Base(dir), nil
		change(&p)
		return p
	}
	importing := func(dir string, names ...string) pkg {
		return with(dir, func(p *pkg) { p.imports = names })
	}
	for name, c := range map[string]struct {
		p    pkg
		want int
	}{
		"good":                     {good, 0},
		"tree below a row":         {importing("objstore/s3", module+"/objstore", "github.com/aws/aws-sdk-go-v2/service/s3"), 0},
		"command":                  {importing("cmd/ltx-pub", module+"/publisher", module+"/internal/daemon"), 0},
		"no doc":                   {with("wire", func(p *pkg) { p.hasDoc = false }), 1},
		"no row":                   {importing("internal/unheard"), 1},
		"vague directory, no row":  {importing("internal/utils"), 2},
		"vague name":               {with("wire", func(p *pkg) { p.name = "common" }), 1},
		"role imports role":        {importing("publisher", module+"/subscriber"), 1},
		"mechanism imports role":   {importing("internal/capture", module+"/publisher"), 1},
		"vocabulary imports":       {importing("wire", module+"/internal/wal"), 1},
		"test world imports role":  {importing("testenv/app", module+"/publisher"), 1},
		"driver in wal":            {importing("internal/wal", "github.com/mattn/go-sqlite3"), 2},
		"nats in wal":              {importing("internal/wal", "github.com/nats-io/nats.go"), 1},
		"more than three in wire":  {importing("wire", "golang.org/x/sync/errgroup"), 1},
		"sdk elsewhere":            {importing("archiver", "github.com/aws/aws-sdk-go-v2/config"), 1},
		"sdk in another's package": {importing("objstore/gcs", "github.com/Azure/azure-sdk-for-go/sdk/storage"), 1},
		"server in a role":         {importing("publisher", "github.com/nats-io/nats-server/v2/server"), 1},
	} {
		t.Run(name, func(t *testing.T) {
			if got := check([]pkg{c.p}); len(got) != c.want {
				t.Fatalf("%d faults, want %d: %q", len(got), c.want, got)
			}
		})
	}
}

// TestModifiedHasOneReader: objstore.Info.Modified is the storage's clock. Who
// took it for the time of a transaction would restore a wrong point, so only the
// backends and the format that has no other time may name it.
func TestModifiedHasOneReader(t *testing.T) {
	readers := map[string]int{}
	err := fs.WalkDir(os.DirFS("."), ".", func(p string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && p != "." && strings.HasPrefix(e.Name(), "."):
			return fs.SkipDir
		case e.IsDir() || !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go"):
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), filepath.FromSlash(p), nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == "Modified" {
				readers[path.Dir(p)]++
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if readers["restore/generations"] == 0 {
		t.Error("restore/generations does not read it: the test looks for something else")
	}
	for dir := range readers {
		if dir == "objstore/levels" || !matchesAny(dir, []string{"objstore/...", "restore/generations"}) {
			t.Errorf("%s reads Modified: a transaction's time is Info.Timestamp, or that of the LTX header", dir)
		}
	}
}
