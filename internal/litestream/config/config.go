package config

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/ltxstream/ltxstream/wire"
)

// Imported is what became of a configuration.
type Imported struct {
	Publisher, Archiver string // YAML, for --config of ltx-pub and ltx-archive
	Notes               []Note // in the order of the file
}

// Import translates. source names the file in comments. The error says all that is
// wrong with it, and shows nothing of its values.
func Import(r io.Reader, source string) (*Imported, error) {
	values := map[string]any{}
	if err := yaml.NewDecoder(r).Decode(&values); err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.New(yaml.FormatError(err, false, false)) // without the lines, which may hold secrets
	}
	l := &log{}
	c := &converter{log: l, top: newSection("", values, nil, l), names: map[wire.DB]bool{}}
	dbs := c.read()
	if err := l.err(); err != nil {
		return nil, err
	}
	w := writer{converter: c, source: source, dbs: dbs}
	return &Imported{Publisher: w.publisher(), Archiver: w.archiver(), Notes: l.notes}, nil
}

// converter holds what is gathered from all over the file.
type converter struct {
	log     *log
	top     *section
	names   map[wire.DB]bool
	secrets secrets

	snapshot, window, flush setting // intervals of all databases
	windows                 []string
	http, level, format     string
	conn                    []pair // of the NATS connection
}

// pair is a key of ours and its value.
type pair struct{ key, value string }

func (c *converter) read() (dbs []database) {
	c.general()
	entries := c.top.list("dbs", nil)
	if len(entries) == 0 {
		c.log.fail("dbs", "no databases")
	}
	for _, s := range entries {
		dbs = append(dbs, c.databases(s)...)
	}
	c.top.rest(pub, topWithout)
	return dbs
}

// general reads what is not of one database.
func (c *converter) general() {
	top := c.top
	if c.http = top.text("addr"); c.http != "" {
		c.log.note(archive, "addr", "is ltx-pub's now; ltx-archive needs an address of its own: http")
	}
	if s := top.sub("logging", nil); s != nil {
		if c.level = s.text("level"); c.level == "trace" {
			c.level = "debug"
			c.log.note(pub, s.key("level"), "trace: is debug now")
		}
		c.format = s.text("type")
		if stderr, set := s.flag("stderr"); set && !stderr {
			c.log.note(pub, s.key("stderr"), "no counterpart: logs go to stderr")
		}
		s.rest(pub, map[string]string{"source": "logs do not name their source"})
	}
	if s := top.sub("retention", nil); s != nil {
		if enabled, set := s.flag("enabled"); set && !enabled {
			c.window.set(c.log, s.key("enabled"), "0s")
			c.log.note(archive, s.key("enabled"), "false: keep-window 0s, nothing is deleted")
		}
		s.rest(archive, nil)
	}
	c.intervals(top)
	for i, s := range top.list("levels", nil) {
		interval := s.duration("interval")
		if i == 0 {
			c.log.note(archive, s.key("interval"), "no counterpart: a file of level 1 is written with each flush")
		} else if interval != "" {
			c.windows = append(c.windows, interval)
		}
		s.rest(archive, nil)
	}
}

// intervals reads the snapshot settings of a database, or of all.
func (c *converter) intervals(s *section) {
	if sub := s.sub("snapshot", nil); sub != nil {
		c.snapshot.set(c.log, sub.key("interval"), sub.duration("interval"))
		c.window.set(c.log, sub.key("retention"), sub.duration("retention"))
		sub.rest(archive, nil)
	}
}

// replicaIntervals reads those of a replica; retention and snapshot-interval are
// Litestream 0.3's.
func (c *converter) replicaIntervals(s *section) {
	c.flush.set(c.log, s.key("sync-interval"), s.duration("sync-interval"))
	c.snapshot.set(c.log, s.key("snapshot-interval"), s.own().duration("snapshot-interval"))
	c.window.set(c.log, s.key("retention"), s.own().duration("retention"))
}

// setting is a value that is one for all databases with us: the first.
type setting struct{ key, value string }

func (s *setting) set(l *log, key, value string) {
	switch {
	case value == "":
	case s.value == "":
		s.key, s.value = key, value
	case !same(s.value, value):
		l.note(archive, key, "%s differs from %s (%s), which is taken: with us it is one for all databases of an ltx-archive", value, s.key, s.value)
	}
}

func same(a, b string) bool {
	x, errX := time.ParseDuration(a)
	y, errY := time.ParseDuration(b)
	return a == b || errX == nil && errY == nil && x == y
}

// connection takes over how a replica on NATS is reached: the stream is to be on
// that server too.
func (c *converter) connection(r *replica) {
	server := ""
	if r.url.host != "" {
		server = "nats://" + r.url.host
	}
	if server != "" {
		r.log.note(pub, r.key("url"), "the stream is to be on the server of the object store: server %s", server)
	}
	for _, p := range []struct{ ours, theirs string }{{"creds", "creds"}, {"user", "username"}, {"tlscert", "client-cert"}, {"tlskey", "client-key"}} {
		c.connect(r, r.key(p.theirs), p.ours, r.text(p.theirs))
	}
	c.connect(r, r.key("url"), "server", server)
	switch {
	case r.url.user != "" && r.url.password == "": // that is how a token is written
		c.secrets.add(r.section, "url", "NATS_TOKEN", r.url.user)
	case r.url.user != "":
		c.connect(r, r.key("url"), "user", r.url.user)
	}
	if v, _ := r.get("root-cas"); v != nil {
		list, _ := v.([]any)
		for i, ca := range list {
			if i > 0 {
				r.log.note(pub, r.key("root-cas"), "one file is taken over: put the others into it")
				break
			}
			c.connect(r, r.key("root-cas"), "tlsca", variables(fmt.Sprint(ca)))
		}
	}
}

func (c *converter) connect(r *replica, key, name, value string) {
	if value == "" {
		return
	}
	for _, p := range c.conn {
		if p.key == name {
			if p.value != value {
				r.log.note(pub, key, "differs from an earlier replica's: with us there is one NATS connection")
			}
			return
		}
	}
	c.conn = append(c.conn, pair{name, value})
}
