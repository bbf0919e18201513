package config

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// section is one mapping of the file. It remembers which keys were looked at, so
// that the others can be named.
type section struct {
	path   string // "dbs[0].replica"; "": the whole file
	values map[string]any
	used   map[string]bool
	above  *section // has the defaults; nil: nothing has
	log    *log
}

// log collects what is to be said.
type log struct {
	errs  []error
	notes []Note
}

// Note says what became of a key that was not simply taken over.
type Note struct {
	Key  string // "dbs[0].replica.skip-verify"
	Text string
	file file // whose comment it is
}

func (n Note) String() string { return n.Key + ": " + n.Text }

// file is one of the two that come out.
type file int

const (
	pub file = iota
	archive
)

func (l *log) fail(key, format string, args ...any) {
	l.errs = append(l.errs, fmt.Errorf(key+": "+format, args...))
}

func (l *log) note(f file, key, format string, args ...any) {
	n := Note{key, fmt.Sprintf(format, args...), f}
	if !slices.Contains(l.notes, n) {
		l.notes = append(l.notes, n)
	}
}

func (l *log) err() error { return errors.Join(l.errs...) }

func newSection(path string, values map[string]any, above *section, l *log) *section {
	return &section{path: path, values: values, used: map[string]bool{}, above: above, log: l}
}

// key is the name of one of its keys in notes.
func (s *section) key(name string) string { return strings.TrimPrefix(s.path+"."+name, ".") }

// get returns a value that is not null, and in which section it is.
func (s *section) get(name string) (v any, in *section) {
	for in = s; in != nil; in = in.above {
		if v, ok := in.values[name]; ok {
			in.used[name] = true
			if v != nil {
				return v, in
			}
		}
	}
	return nil, s
}

// text returns a single value as a text with its variables as ours, "": absent.
func (s *section) text(name string) string {
	v, in := s.get(name)
	switch v := v.(type) {
	case nil:
		return ""
	case map[string]any, []any:
		in.log.fail(in.key(name), "want a single value")
		return ""
	default:
		return variables(fmt.Sprint(v))
	}
}

// own is the section without its defaults.
func (s *section) own() *section {
	alone := *s
	alone.above = nil
	return &alone
}

// duration returns a duration as it is written, "": absent.
func (s *section) duration(name string) string {
	v := s.text(name)
	if d, err := time.ParseDuration(v); v != "" && !hasVariable(v) && (err != nil || d < 0) {
		s.log.fail(s.key(name), "want a duration, as 10s or 24h")
	}
	return v
}

// flag returns a truth value; ok is false where it is absent.
func (s *section) flag(name string) (v, ok bool) {
	switch text := s.text(name); text {
	case "":
		return false, false
	case "true", "yes", "on":
		return true, true
	case "false", "no", "off":
		return false, true
	default:
		s.log.fail(s.key(name), "want true or false")
		return false, false
	}
}

// sub returns the mapping under a key; nil: absent.
func (s *section) sub(name string, above *section) *section {
	v, in := s.get(name)
	return in.asSection(in.key(name), v, above)
}

// list returns the mappings of a list.
func (s *section) list(name string, above *section) (all []*section) {
	v, in := s.get(name)
	if v == nil {
		return nil
	}
	items, ok := v.([]any)
	if !ok {
		s.log.fail(in.key(name), "want a list")
	}
	for i, item := range items {
		if sub := in.asSection(fmt.Sprintf("%s[%d]", in.key(name), i), item, above); sub != nil {
			all = append(all, sub)
		}
	}
	return all
}

func (s *section) asSection(path string, v any, above *section) *section {
	if v == nil {
		return nil
	}
	values, ok := v.(map[string]any)
	if !ok {
		s.log.fail(path, "want a mapping")
		return nil
	}
	return newSection(path, values, above, s.log)
}

// drop takes all keys for looked at: what they belong to was named.
func (s *section) drop() {
	for name := range s.values {
		s.used[name] = true
	}
}

// rest names every key that was not looked at.
func (s *section) rest(f file, without map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(s.values)) {
		if s.used[name] {
			continue
		}
		switch why, known := without[name]; {
		case !known:
			s.log.note(f, s.key(name), "not known, left out")
		case why == never:
			s.log.note(f, s.key(name), "%s", why)
		default:
			s.log.note(f, s.key(name), "no counterpart: %s", why)
		}
	}
}

var (
	bare      = regexp.MustCompile(`\$([A-Za-z_][A-Za-z0-9_]*)`)
	reference = regexp.MustCompile(`\$\{[^}]*\}`)
)

// variables writes $NAME, which Litestream expands too, as ${NAME}.
func variables(s string) string { return bare.ReplaceAllString(s, "$${$1}") }

func hasVariable(s string) bool { return reference.MatchString(s) }
