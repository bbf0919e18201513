package config

import (
	"net/url"
	"path"
	"strings"
)

// location is where a replica keeps the files of one database.
type location struct {
	base  string // "s3://bucket", "sftp://user@host"; "" of a directory
	path  string // below base; of a directory and on SFTP with its slash in front
	query string // with its "?"
	anew  bool   // what Litestream has there cannot be continued
}

func (l location) String() string {
	switch {
	case l.base == "":
		return l.path
	case l.path == "":
		return l.base + l.query
	}
	return l.base + "/" + strings.TrimPrefix(l.path, "/") + l.query
}

// split returns the place above and the last segment; ok is false where there is
// nothing above that could be a place of ours.
func (l location) split() (above location, last string, ok bool) {
	above, last = l, path.Base(l.path)
	above.path = path.Dir(l.path)
	switch {
	case l.path == "" || last == "." || last == "/":
		return l, "", false
	case above.path == "." && l.base != "":
		above.path = ""
	case above.path == "/" && strings.HasPrefix(l.base, "sftp:"):
		return l, "", false
	}
	return above, last, true
}

// below returns the place of a database with a path relative to a directory.
func (l location) below(rel string) location {
	l.path = path.Join(l.path, rel)
	return l
}

// parameters makes a query of names and values, those that have one. Variables stay
// as they are.
func parameters(pairs ...string) string {
	var b strings.Builder
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] == "" {
			continue
		}
		b.WriteByte("?&"[min(b.Len(), 1)])
		b.WriteString(pairs[i] + "=" + escape(pairs[i+1]))
	}
	return b.String()
}

// escape is url.QueryEscape, but for variables and for what may stand as it is.
func escape(s string) string {
	var b strings.Builder
	last := 0
	for _, at := range reference.FindAllStringIndex(s, -1) {
		b.WriteString(readable.Replace(url.QueryEscape(s[last:at[0]])) + s[at[0]:at[1]])
		last = at[1]
	}
	b.WriteString(readable.Replace(url.QueryEscape(s[last:])))
	return b.String()
}

var readable = strings.NewReplacer("%2F", "/", "%3A", ":")
