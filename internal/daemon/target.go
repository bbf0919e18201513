package daemon

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/ltxstream/ltxstream/wire"
)

// Target is one database file and its name on the stream.
type Target struct {
	DB   wire.DB
	Path string // absolute
}

// StateDir is where a process keeps what it needs beside the file:
// ".app.db-ltx" for app.db.
func (t Target) StateDir() string {
	dir, base := filepath.Split(t.Path)
	return filepath.Join(dir, "."+base+"-ltx")
}

// ParseTargets reads "[NAME=]PATH" arguments, reporting all faults. Without a
// name, the file's base name without extension is the name. A path may be given
// once. Faults have exit code 2.
func ParseTargets(args []string) ([]Target, error) { return ParseTargetsNamed(args, wire.ParseDB) }

// ParseTargetsNamed is ParseTargets with another rule for names.
func ParseTargetsNamed(args []string, rule func(name string) (wire.DB, error)) ([]Target, error) {
	var targets []Target
	var errs []error
	paths := map[string]bool{}
	for _, arg := range args {
		t, err := parseTarget(arg, rule)
		if err == nil && paths[t.Path] {
			err = fmt.Errorf("%s is given twice", t.Path)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		paths[t.Path] = true
		targets = append(targets, t)
	}
	if len(args) == 0 {
		errs = append(errs, errors.New("no database given: want [NAME=]PATH"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, Exit(ExitUsage, err, "nothing was done; see --help")
	}
	return targets, nil
}

func parseTarget(arg string, rule func(string) (wire.DB, error)) (Target, error) {
	name, path, named := strings.Cut(arg, "=")
	if !named {
		path = arg
	}
	if path == "" {
		return Target{}, fmt.Errorf("%q has no path: want [NAME=]PATH", arg)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return Target{}, fmt.Errorf("resolve path %q: %w", path, err)
	}
	db, err := wire.DBFromPath(abs)
	if named {
		db, err = rule(name)
	}
	return Target{DB: db, Path: abs}, err
}

// Distinct returns an error when two targets have one name.
func Distinct(targets []Target) error {
	seen := map[wire.DB]string{}
	for _, t := range targets {
		if other, ok := seen[t.DB]; ok {
			return Exit(ExitUsage, fmt.Errorf("%s and %s both have the name %q", other, t.Path, t.DB),
				"nothing was done; name one of them yourself with NAME="+t.Path)
		}
		seen[t.DB] = t.Path
	}
	return nil
}
