package dir

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"

	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/objstore/internal/tree"
)

// Config of a store.
type Config struct {
	Path   string // of the directory; required
	Create bool   // make it, and those above it, when it is missing

	step func(string) // of tests
}

// ParseURL reads file:///path?create=true, or a path alone. Nothing but the
// form is checked.
func ParseURL(u *url.URL) (Config, error) {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if u.Scheme != "" && u.Scheme != "file" {
		fault("scheme %q: want file", u.Scheme)
	}
	if u.Host != "" && u.Host != "localhost" {
		fault("host %q: a path begins with a third slash, file:///%s%s", u.Host, u.Host, u.Path)
	}
	if u.Opaque != "" || u.Path == "" {
		fault("no path: want file:///path")
	}
	cfg := Config{Path: u.Path}
	for name, values := range u.Query() {
		create, err := strconv.ParseBool(values[len(values)-1])
		switch {
		case name != "create":
			fault("unknown parameter %q: create is the only one", name)
		case err != nil:
			fault("parameter create=%s: want true or false", values[len(values)-1])
		}
		cfg.Create = create
	}
	if err := errors.Join(faults...); err != nil {
		return Config{}, fmt.Errorf("storage URL %s: %w", u.Redacted(), err)
	}
	return cfg, nil
}

// Store is an [objstore.Store] on a directory.
type Store struct{ *tree.Store }

var _ objstore.Store = (*Store)(nil)

// New opens a store without touching the file system.
func New(_ context.Context, cfg Config) (*Store, error) {
	if cfg.Path == "" {
		return nil, errors.New("directory store: no path")
	}
	root, err := filepath.Abs(cfg.Path)
	if err != nil {
		return nil, fmt.Errorf("directory store: %w", err)
	}
	root = filepath.ToSlash(root)
	return &Store{tree.New(tree.Config{
		FS: files{}, Root: root, Create: cfg.Create, Step: cfg.step,
		URL: (&url.URL{Scheme: "file", Path: root}).String(),
	})}, nil
}
