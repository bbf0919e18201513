package config

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ltxstream/ltxstream/wire"
)

// database is one that was replicated.
type database struct {
	path   string
	name   wire.DB
	places []location // of its replicas
}

// databases reads the entry of one file, or of a directory.
func (c *converter) databases(s *section) []database {
	p, dir := home(stripScheme(s.text("path"))), home(s.text("dir"))
	switch {
	case p != "" && dir != "":
		s.log.fail(s.key("dir"), "path and dir exclude each other")
	case p == "" && dir == "":
		s.log.fail(s.path, "neither path nor dir")
	}
	places := c.replicas(s)
	c.intervals(s)
	var all []database
	if dir != "" {
		for _, rel := range s.files(dir) {
			all = append(all, c.database(filepath.Join(dir, rel), rel, below(places, rel)))
		}
	} else if p != "" {
		all = []database{c.database(p, filepath.Base(p), places)}
	}
	s.rest(pub, dbWithout)
	return all
}

// stripScheme takes off what Litestream takes off.
func stripScheme(p string) string {
	return strings.TrimPrefix(strings.TrimPrefix(p, "sqlite3://"), "sqlite://")
}

func below(places []location, rel string) []location {
	all := make([]location, len(places))
	for i, l := range places {
		all[i] = l.below(filepath.ToSlash(rel))
	}
	return all
}

// replicas returns the places of an entry, the one to be continued first.
func (c *converter) replicas(s *section) (places []location) {
	all := s.list("replicas", c.top)
	if one := s.sub("replica", c.top); one != nil {
		if len(all) > 0 {
			s.log.fail(s.key("replicas"), "replica and replicas exclude each other")
		}
		all = []*section{one}
	}
	if len(all) == 0 {
		s.log.note(archive, s.key("replica"), "missing: this database has no archive yet")
	}
	if len(all) > 1 {
		s.log.note(archive, s.key("replicas"), "all are destinations; the first one is continued, the others begin anew with the next full file")
	}
	for _, rs := range all {
		loc, r, ok := readReplica(rs)
		c.secrets.note(rs, r.kind)
		if variable := secretsOf[r.kind]["password"]; variable != "" && r.url.password != "" {
			c.secrets.add(rs, "url", variable, r.url.password)
		}
		if r.kind == "nats" {
			c.connection(r)
		}
		c.replicaIntervals(rs)
		rs.rest(archive, replicaWithout)
		if ok {
			places = append(places, loc)
		}
	}
	return places
}

// files lists the databases of a directory that there are now.
func (s *section) files(dir string) (found []string) {
	pattern := s.text("pattern")
	recursive, _ := s.flag("recursive")
	if watch, _ := s.flag("watch"); watch {
		s.log.note(pub, s.key("watch"), "no counterpart: databases that come later have to be added")
	}
	if pattern == "" {
		s.log.fail(s.key("pattern"), "missing")
		return nil
	}
	if hasVariable(dir + pattern) {
		s.log.note(pub, s.key("dir"), "holds a variable: name its databases yourself, as NAME=PATH")
		return nil
	}
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && p != dir && !recursive:
			return fs.SkipDir
		case e.IsDir():
			return nil
		}
		ok, err := filepath.Match(pattern, e.Name())
		if rel, _ := filepath.Rel(dir, p); ok && isDatabase(p) {
			found = append(found, rel)
		}
		return err
	})
	if err != nil {
		s.log.note(pub, s.key("dir"), "cannot be read (%v): name its databases yourself, as NAME=PATH", err)
	} else if len(found) == 0 {
		s.log.note(pub, s.key("dir"), "no database is there now")
	}
	return found
}

const magic = "SQLite format 3\x00"

func isDatabase(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	b := make([]byte, len(magic))
	_, err = io.ReadFull(f, b)
	return err == nil && bytes.Equal(b, []byte(magic))
}

// database finds a name: the last segment of the first place, so that URL and NAME
// meet there; else the file's, made fit.
func (c *converter) database(path, rel string, places []location) database {
	d := database{path: path, places: places}
	for _, l := range places[:min(len(places), 1)] {
		if _, last, ok := l.split(); ok && c.free(last) {
			d.name = wire.DB(last)
		}
	}
	base := cmp.Or(fit(strings.TrimSuffix(filepath.Base(rel), filepath.Ext(rel))), "db")
	for _, name := range []string{base, fit(strings.TrimSuffix(rel, filepath.Ext(rel)))} {
		if d.name == "" && c.free(name) {
			d.name = wire.DB(name)
		}
	}
	for n := 2; d.name == ""; n++ {
		if name := fmt.Sprintf("%.56s-%d", base, n); c.free(name) {
			d.name = wire.DB(name)
		}
	}
	c.names[d.name] = true
	return d
}

func (c *converter) free(name string) bool {
	db, err := wire.ParseDB(name)
	return err == nil && !c.names[db]
}

// fit replaces what may not be in a name.
func fit(s string) string {
	s = strings.NewReplacer("${", "", "}", "").Replace(s)
	s = strings.Map(func(r rune) rune {
		if _, err := wire.ParseDB(string(r)); err != nil {
			return '-'
		}
		return r
	}, s)
	s = strings.Trim(s, "-")
	return s[:min(len(s), wire.MaxNameLen)]
}
