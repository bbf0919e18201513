package daemon

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/ltxstream/ltxstream/wire"
)

// Place is where an archive of one database is, or of any number.
type Place struct {
	// DB is the database whose own folder URL names; "": each database has a folder
	// of its name below URL.
	DB  wire.DB
	URL string // a path is absolute
}

// ParsePlaces reads "[NAME=]URL" values, reporting all faults, with exit code 2. A
// directory with "=" in its first segment is to be written as "./a=b".
func ParsePlaces(flag string, values []string) ([]Place, error) {
	var places []Place
	var errs []error
	for _, value := range values {
		p, err := parsePlace(value)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s %q: %w", flag, value, err))
		}
		places = append(places, p)
	}
	return places, Exit(ExitUsage, errors.Join(errs...), "nothing was done; see --help")
}

func parsePlace(value string) (p Place, err error) {
	name, url, named := strings.Cut(value, "=")
	if !named || strings.ContainsAny(name, "/:") {
		return Place{URL: absolute(value)}, nil
	}
	p.DB, err = wire.ParseDB(name)
	if url == "" {
		err = errors.Join(err, errors.New("no URL behind the name"))
	}
	p.URL = absolute(url)
	return p, err
}

// absolute makes the path of a directory independent of where we were started.
func absolute(url string) string {
	if url == "" || strings.HasPrefix(url, "-") || strings.Contains(url, "://") {
		return url
	}
	if abs, err := filepath.Abs(url); err == nil {
		return abs
	}
	return url
}
