package config

import (
	"cmp"
	"regexp"
	"strconv"
	"strings"
)

// provider is an S3 service that Litestream knows by the host of a URL.
type provider struct {
	host      *regexp.Regexp // groups: bucket, region
	endpoint  string         // $1 is the region
	pathStyle bool
}

var providers = []provider{
	{regexp.MustCompile(`^(.+)\.s3(?:\.([^.]+))?\.amazonaws\.com$`), "", false},
	{regexp.MustCompile(`^(.+)\.([^.]+)\.digitaloceanspaces\.com$`), "https://$1.digitaloceanspaces.com", false},
	{regexp.MustCompile(`^(.+)\.s3\.([^.]+)\.backblazeb2\.com$`), "https://s3.$1.backblazeb2.com", true},
	{regexp.MustCompile(`^(.+)\.s3\.filebase\.com()$`), "https://s3.filebase.com", true},
	{regexp.MustCompile(`^(.+)\.s3\.([^.]+)\.scw\.cloud$`), "https://s3.$1.scw.cloud", false},
}

// bucketHost is what a host of an s3:// URL says.
type bucketHost struct {
	bucket, region, endpoint string
	pathStyle                bool
}

func parseHost(host string) bucketHost {
	for _, p := range providers {
		if m := p.host.FindStringSubmatch(host); m != nil {
			return bucketHost{m[1], m[2], strings.ReplaceAll(p.endpoint, "$1", m[2]), p.pathStyle}
		}
	}
	if bucket, server, ok := strings.Cut(host, "."); ok && strings.Contains(server, ":") && !hasVariable(host) {
		return bucketHost{bucket, "us-east-1", "http://" + server, true}
	}
	return bucketHost{bucket: host}
}

func (r *replica) s3() (location, bool) {
	h := parseHost(r.url.host)
	bucket := cmp.Or(r.text("bucket"), h.bucket)
	switch {
	case bucket == "":
		r.log.fail(r.key("bucket"), "missing")
		return location{}, false
	case strings.HasPrefix(bucket, "arn:"):
		r.log.note(archive, r.key("bucket"), "no counterpart: access points are not supported, name the bucket")
		return location{}, false
	}
	path, raw := r.keyPath(), r.own().text("path")
	anew := path == "" || raw != "" && raw != path
	if anew {
		r.log.note(archive, r.key("path"), "Litestream's keys have an empty segment there (a path that is empty, or begins or ends with a slash), which ltx-archive cannot name: its history begins anew beside them")
	}
	endpoint := withScheme(cmp.Or(r.text("endpoint"), r.url.parameter("endpoint"), h.endpoint))
	region := cmp.Or(r.text("region"), r.url.parameter("region"), h.region)
	query := parameters("endpoint", endpoint, "region", region, "path-style", r.pathStyle(endpoint, h), "part-size", r.partSize())
	return location{base: "s3://" + bucket, path: path, query: query, anew: anew}, true
}

// pathStyle is "" where it is what we do anyway: with an endpoint.
func (r *replica) pathStyle(endpoint string, h bucketHost) string {
	inURL := r.url.parameter("forcePathStyle", "force-path-style")
	style, set := r.flag("force-path-style")
	switch {
	case set:
	case inURL != "":
		style = inURL == "true" || inURL == "1"
	case h.endpoint == endpoint && endpoint != "":
		style = h.pathStyle
	default:
		style = endpoint != ""
	}
	if style == (endpoint != "") {
		return ""
	}
	return strconv.FormatBool(style)
}

var local = regexp.MustCompile(`^(localhost|127\.0\.0\.1|192\.168\.|10\.|172\.(1[67]|2\d|3[01])\.|[^/:]*\.local(host)?)`)

// withScheme adds the one that Litestream would take.
func withScheme(endpoint string) string {
	switch {
	case endpoint == "" || strings.Contains(endpoint, "://") || strings.HasPrefix(endpoint, "${"):
		return endpoint
	case local.MatchString(endpoint):
		return "http://" + endpoint
	}
	return "https://" + endpoint
}

var size = regexp.MustCompile(`(?i)^(\d+)\s*(B|KB|KiB|MB|MiB|GB|GiB)?$`)

var units = map[string]int64{"": 1, "b": 1, "kb": 1e3, "kib": 1 << 10, "mb": 1e6, "mib": 1 << 20, "gb": 1e9, "gib": 1 << 30}

// partSize is in bytes.
func (r *replica) partSize() string {
	name := "part-size"
	text := cmp.Or(r.text(name), r.url.parameter("partSize", name))
	if text == "" || hasVariable(text) {
		return text
	}
	m := size.FindStringSubmatch(text)
	if m == nil {
		r.log.fail(r.key(name), "want a size, as 16MB")
		return ""
	}
	n, err := strconv.ParseInt(m[1], 10, 40)
	if n *= units[strings.ToLower(m[2])]; err != nil || n < 5<<20 || n > 5<<30 {
		r.log.note(archive, r.key(name), "left out: ltx-archive takes 5 MiB to 5 GiB")
		return ""
	}
	return strconv.FormatInt(n, 10)
}
