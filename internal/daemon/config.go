package daemon

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/goccy/go-yaml"
)

// ConfigFile is a command's configuration file: YAML whose keys are the long
// names of the command's flags. "${NAME}" in a text is replaced by the
// environment variable, "$${" stands for "${". A flag on the command line wins
// over its environment variable, and that over the file.
type ConfigFile struct {
	path   string
	values map[string]any
	extra  []string // keys that are no flags
}

// ReadConfig reads a configuration file. extra are keys it may have that are no
// flags. Every variable that is not set is named in the error.
func ReadConfig(path string, extra ...string) (*ConfigFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, Exit(ExitUsage, fmt.Errorf("read --config: %w", err), "")
	}
	defer f.Close()
	c, err := parseConfig(f, os.LookupEnv)
	if err != nil {
		return nil, Exit(ExitUsage, fmt.Errorf("read --config %s: %w", path, err), "")
	}
	c.path, c.extra = path, extra
	return c, nil
}

func parseConfig(r io.Reader, lookup func(string) (string, bool)) (*ConfigFile, error) {
	values := map[string]any{}
	err := yaml.NewDecoder(r, yaml.Strict()).Decode(&values)
	if err != nil && !errors.Is(err, io.EOF) { // an empty file
		return nil, err
	}
	e := &expander{lookup: lookup}
	expanded, _ := e.value(values).(map[string]any)
	if len(e.unset) > 0 {
		return nil, fmt.Errorf("environment variables not set: %s", strings.Join(slices.Compact(slices.Sorted(slices.Values(e.unset))), ", "))
	}
	return &ConfigFile{values: expanded}, nil
}

var _ kong.Resolver = (*ConfigFile)(nil)

// Validate implements kong.Resolver. Keys are checked by Check, which knows
// the command that was chosen.
func (c *ConfigFile) Validate(*kong.Application) error { return nil }

// Resolve implements kong.Resolver.
func (c *ConfigFile) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	for _, env := range flag.Envs {
		if _, set := os.LookupEnv(env); set {
			return nil, nil // the environment wins over the file
		}
	}
	v, ok := c.values[flag.Name]
	if !ok {
		return nil, nil
	}
	if _, nested := v.(map[string]any); nested {
		return nil, fmt.Errorf("%s: key %q: want a single value", c.path, flag.Name)
	}
	return plain(v, flag.Tag.Sep), nil
}

// plain makes a flag value of a YAML value; kong takes text for all of them. Of a
// list it is as on the command line, where the flag has a separator (-1: none).
func plain(v any, sep rune) any {
	switch v := v.(type) {
	case []any:
		if sep == -1 {
			return v
		}
		texts := make([]string, len(v))
		for i, item := range v {
			texts[i] = fmt.Sprint(item)
		}
		return strings.Join(texts, string(sep))
	case nil:
		return ""
	default:
		return fmt.Sprint(v)
	}
}

// Check refuses keys that are neither a flag in flags nor one of the extra
// keys, naming all of them. A flag tagged "noconfig" is for the command line
// only.
func (c *ConfigFile) Check(flags []*kong.Flag) error {
	known := slices.Clone(c.extra)
	for _, f := range flags {
		if f.Tag.Has("noconfig") {
			continue
		}
		known = append(known, f.Name)
	}
	var unknown []string
	for key := range c.values {
		if !slices.Contains(known, key) {
			unknown = append(unknown, key)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	slices.Sort(unknown)
	return Exit(ExitUsage, fmt.Errorf("read --config %s: unknown keys: %s", c.path, strings.Join(unknown, ", ")),
		"keys are the long flag names of this command without the dashes; see --help")
}

// Strings returns a list of texts under key, nil when it is absent.
func (c *ConfigFile) Strings(key string) ([]string, error) {
	v, ok := c.values[key]
	if !ok {
		return nil, nil
	}
	list, ok := v.([]any)
	if !ok {
		return nil, Exit(ExitUsage, fmt.Errorf("read --config %s: key %q: want a list of texts", c.path, key), "")
	}
	out := make([]string, len(list))
	for i, item := range list {
		if out[i], ok = item.(string); !ok {
			return nil, Exit(ExitUsage, fmt.Errorf("read --config %s: key %q: item %d is not a text", c.path, key, i+1), "")
		}
	}
	return out, nil
}

// expander replaces variables in all texts of a YAML value.
type expander struct {
	lookup func(string) (string, bool)
	unset  []string
}

var variable = regexp.MustCompile(`\$?\$\{[^}]*\}`)

func (e *expander) value(v any) any {
	switch v := v.(type) {
	case string:
		return variable.ReplaceAllStringFunc(v, e.text)
	case []any:
		for i := range v {
			v[i] = e.value(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = e.value(v[k])
		}
	}
	return v
}

func (e *expander) text(match string) string {
	if strings.HasPrefix(match, "$$") {
		return match[1:]
	}
	name := match[2 : len(match)-1]
	s, ok := e.lookup(name)
	if !ok {
		e.unset = append(e.unset, name)
	}
	return s
}
