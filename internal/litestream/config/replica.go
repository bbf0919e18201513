package config

import (
	"cmp"
	"maps"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
)

// replica is one as the file has it: its section, whose defaults are those of the
// whole file, and its URL taken apart.
type replica struct {
	*section
	kind string // "s3"
	url  replicaURL
}

// replicaURL is SCHEME://[USER[:PASSWORD]@]HOST/PATH?QUERY. Any part may hold
// variables, which url.Parse would refuse.
type replicaURL struct {
	scheme, user, password, host, path string
	query                              url.Values
}

var urlForm = regexp.MustCompile(`^(\w+)://([^/?]*)(/[^?]*)?(?:\?(.*))?$`)

func parseURL(s string) (u replicaURL, ok bool) {
	m := urlForm.FindStringSubmatch(s)
	if m == nil {
		return u, false
	}
	u.scheme, u.host, u.path = strings.ToLower(m[1]), m[2], m[3]
	if i := strings.LastIndexByte(u.host, '@'); i >= 0 {
		u.user, u.password, _ = strings.Cut(u.host[:i], ":")
		u.host = u.host[i+1:]
	}
	query, err := url.ParseQuery(m[4])
	u.query = query
	return u, err == nil
}

// parameter takes one out of the query: what is left is named at the end.
func (u replicaURL) parameter(names ...string) (value string) {
	for _, name := range names {
		value = cmp.Or(value, u.query.Get(name))
		u.query.Del(name)
	}
	return value
}

// kinds make a location of a replica, by its type; false: it has none of ours.
var kinds = map[string]func(*replica) (location, bool){
	"file": (*replica).file, "s3": (*replica).s3, "gs": (*replica).gs, "gcs": (*replica).gs,
	"abs": (*replica).abs, "sftp": (*replica).sftp, "nats": (*replica).nats,
}

// readReplica takes a replica apart. Its type is that of its URL, else what it
// says, else a directory.
func readReplica(s *section) (location, *replica, bool) {
	raw := s.own().text("url")
	r := &replica{section: s, kind: cmp.Or(s.own().text("type"), "file")}
	if raw == "" {
		return r.locate("type")
	}
	var ok bool
	if r.url, ok = parseURL(raw); !ok && hasVariable(raw) {
		s.log.note(archive, s.key("url"), "taken over as it is: look whether the variable holds a URL that ltx-archive knows")
		return location{path: raw}, r, true
	} else if !ok {
		s.log.fail(s.key("url"), "want a URL, as s3://bucket/path")
		return location{}, r, false
	}
	if s.own().text("path") != "" {
		s.log.fail(s.key("path"), "url and path exclude each other")
	}
	r.kind = r.url.scheme
	return r.locate("url")
}

// locate finds the place of a replica whose type a key told.
func (r *replica) locate(key string) (location, *replica, bool) {
	read, known := kinds[r.kind]
	if !known {
		r.log.note(archive, r.key(key), "no counterpart: ltx-archive has no storage of type %s; nothing of this replica is taken over", r.kind)
		r.drop()
		return location{}, r, false
	}
	loc, ok := read(r)
	for _, name := range slices.Sorted(maps.Keys(r.url.query)) {
		r.log.note(archive, r.key("url"), "parameter %s: not taken over", name)
	}
	return loc, r, ok
}

// keyPath is the path of keys in a bucket.
func (r *replica) keyPath() string {
	raw := cmp.Or(r.own().text("path"), strings.TrimPrefix(path.Clean("/"+r.url.path), "/"))
	return strings.Trim(raw, "/")
}

func (r *replica) bucket() (string, bool) {
	bucket := cmp.Or(r.text("bucket"), r.url.host)
	if bucket == "" {
		r.log.fail(r.key("bucket"), "missing")
	}
	return bucket, bucket != ""
}

func (r *replica) file() (location, bool) {
	p := cmp.Or(r.own().text("path"), r.url.host+r.url.path)
	if p == "" {
		r.log.fail(r.key("path"), "missing")
		return location{}, false
	}
	return location{path: path.Clean(home(p))}, true
}

// home writes a home directory as a variable.
func home(p string) string {
	if rest, ok := strings.CutPrefix(p, "~"); ok && (rest == "" || rest[0] == '/') {
		return "${HOME}" + rest
	}
	return p
}

func (r *replica) gs() (location, bool) {
	bucket, ok := r.bucket()
	return location{base: "gs://" + bucket, path: r.keyPath()}, ok
}

func (r *replica) abs() (location, bool) {
	bucket, ok := r.bucket()
	account := cmp.Or(r.text("account-name"), r.url.user)
	base := "abs://" + bucket
	if account != "" {
		base = "abs://" + account + "@" + bucket
	}
	return location{base: base, path: r.keyPath(), query: parameters("endpoint", r.text("endpoint"))}, ok
}

func (r *replica) sftp() (location, bool) {
	host, user := cmp.Or(r.text("host"), r.url.host), cmp.Or(r.text("user"), r.url.user)
	p := cmp.Or(r.own().text("path"), r.url.path)
	if host == "" || p == "" {
		r.log.fail(r.key("host"), "host and path are needed")
		return location{}, false
	}
	if !strings.HasPrefix(p, "/") {
		p = "/~/" + p // relative to the home of the user
	}
	base := "sftp://" + host
	if user != "" {
		base = "sftp://" + user + "@" + host
	}
	key := r.text("host-key")
	if key == "" {
		r.log.note(archive, r.key("host-key"), "missing: Litestream takes any host then, ltx-archive wants %s in known_hosts, or host-key", host)
	}
	return location{base: base, path: path.Clean(p), query: parameters("identity", home(r.text("key-path")), "host-key", key)}, true
}

// nats is an object store; server and credentials are those of the connection.
func (r *replica) nats() (location, bool) {
	bucket := cmp.Or(strings.Trim(r.url.path, "/"), r.text("bucket"))
	if bucket == "" {
		r.log.fail(r.key("bucket"), "missing")
	}
	return location{base: "nats://" + bucket}, bucket != ""
}
