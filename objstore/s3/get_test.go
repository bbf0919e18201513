package s3

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/objstore/objstoretest"
)

// TestMetadata: what is written is what Litestream reads, and the other way
// round.
func TestMetadata(t *testing.T) {
	server := start(t)
	cfg := configOf(server)
	cfg.Prefix = "p"
	s := open(t, cfg)
	defer s.Close()
	opts := objstore.PutOptions{Timestamp: stamp.Add(999 * time.Microsecond), Meta: map[string]string{"checksum": "f00d"}}
	if _, err := s.Put(t.Context(), "a/x.ltx", strings.NewReader("x"), opts); err != nil {
		t.Fatal(err)
	}
	out, err := s.client.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &s.cfg.Bucket, Key: new("p/a/x.ltx")})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(out.Metadata); got != "map[litestream-timestamp:2021-03-04T05:06:07.089Z ltx-checksum:f00d]" {
		t.Errorf("metadata %s", got)
	}
	for name, c := range map[string]struct {
		meta map[string]string
		want time.Time
		ok   bool
	}{
		"Litestream":   {map[string]string{"litestream-timestamp": "2021-03-04T05:06:07.5Z"}, time.Date(2021, 3, 4, 5, 6, 7, 500_000_000, time.UTC), true},
		"seconds":      {map[string]string{"Litestream-Timestamp": "2021-03-04T05:06:07Z"}, time.Date(2021, 3, 4, 5, 6, 7, 0, time.UTC), true},
		"other zone":   {map[string]string{"litestream-timestamp": "2021-03-04T06:06:07.089123456+01:00"}, stamp.Add(123456), true},
		"none":         {nil, time.Time{}, true},
		"somebody's":   {map[string]string{"mtime": "1614834367"}, time.Time{}, true},
		"not readable": {map[string]string{"litestream-timestamp": "yesterday"}, time.Time{}, false},
	} {
		_, err := s.client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &s.cfg.Bucket, Key: new("p/other.ltx"), Body: strings.NewReader("x"), Metadata: c.meta})
		if err != nil {
			t.Fatal(err)
		}
		info, err := s.Stat(t.Context(), "other.ltx")
		if (err == nil) != c.ok || !info.Timestamp.Equal(c.want) || info.Meta != nil {
			t.Errorf("%s: %+v, %v, want %s", name, info, err, c.want)
		}
		if err == nil && info.Timestamp.Location() != time.UTC {
			t.Errorf("%s: %s is not UTC", name, info.Timestamp)
		}
	}
}

// TestForeignObjects: what the console and others leave is no object of ours.
func TestForeignObjects(t *testing.T) {
	server := start(t)
	cfg := configOf(server)
	cfg.Prefix = "p"
	s := open(t, cfg)
	defer s.Close()
	for _, key := range []string{"p/", "p/a/", "p/a/x.ltx", "p/a/with space", "p/a/.hidden", "q/x.ltx", "p.ltx"} {
		if _, err := s.client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &s.cfg.Bucket, Key: &key, Body: strings.NewReader("")}); err != nil {
			t.Fatal(err)
		}
	}
	got := ""
	for info, err := range s.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		got += info.Key + " "
	}
	if got != "a/x.ltx " {
		t.Errorf("listed %q", got)
	}
}

// TestDamaged: a flipped bit is found by the checksum, and reading it again
// would not help.
func TestDamaged(t *testing.T) {
	server := start(t)
	faults := objstoretest.NewFaults(nil)
	t.Cleanup(faults.CloseIdleConnections)
	cfg := configOf(server)
	cfg.Transport = faults
	s := open(t, cfg)
	putString(t, s, "a/x.ltx", strings.Repeat("x", 1000))
	faults.Next(1, func(base http.RoundTripper, req *http.Request) (*http.Response, error) {
		resp, err := base.RoundTrip(req)
		if err == nil {
			resp.Body = &flipped{ReadCloser: resp.Body}
		}
		return resp, err
	})
	b, err := objstore.ReadAll(t.Context(), objstore.Retry(s, objstore.RetryConfig{}), "a/x.ltx")
	if !errors.Is(err, objstore.ErrDamaged) || kindsOf(err) != (kinds{}) || len(b) != 1000 {
		t.Fatalf("%d bytes, %v, want ErrDamaged", len(b), err)
	}
}

// flipped changes the first byte.
type flipped struct {
	io.ReadCloser
	done bool
}

func (f *flipped) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	if n > 0 && !f.done {
		p[0] ^= 1
		f.done = true
	}
	return n, err
}

// TestStrangeRanges: servers and proxies that do not do what was asked.
func TestStrangeRanges(t *testing.T) {
	read := func(rt http.RoundTripper, offset, size int64) (string, error) {
		r, err := on(t, rt).Get(t.Context(), "a/x.ltx", offset, size)
		if err != nil {
			return "", err
		}
		defer r.Close()
		b, err := io.ReadAll(r)
		return string(b), err
	}
	whole := answering(200, "0123456789")
	if got, err := read(whole, 3, 4); err == nil {
		t.Errorf("range ignored: read %q", got)
	}
	if got, err := read(answering(206, "234567", "Content-Range", "bytes 2-7/10"), 3, 4); err == nil {
		t.Errorf("another range: read %q", got)
	}
	if got, err := read(whole, 0, 4); err != nil || got != "0123" {
		t.Errorf("range from 0 ignored: read %q, %v", got, err)
	}
	if got, err := read(answering(206, "34567", "Content-Range", "bytes 3-7/10"), 3, 4); err != nil || got != "3456" {
		t.Errorf("more than asked for: read %q, %v", got, err)
	}
	refused := func(length string) http.RoundTripper {
		return roundTrip(func(req *http.Request) (*http.Response, error) {
			if req.Method == http.MethodHead {
				resp := reply(req, 200, "")
				resp.Header.Set("Content-Length", length)
				return resp, nil
			}
			return reply(req, 416, document("InvalidRange")), nil
		})
	}
	if got, err := read(refused("3"), 3, 4); err != nil || got != "" {
		t.Errorf("behind the end: read %q, %v", got, err)
	}
	if got, err := read(refused("4"), 3, 4); err == nil {
		t.Errorf("a range refused that is there: read %q", got)
	}
	if got, err := read(roundTrip(func(req *http.Request) (*http.Response, error) {
		resp := reply(req, 200, "0123456789")
		resp.ContentLength = -1
		return resp, nil
	}), 0, -1); err != nil || got != "0123456789" {
		t.Errorf("length unknown: read %q, %v", got, err)
	}
}

// TestListInOrder: an order is what callers rely on.
func TestListInOrder(t *testing.T) {
	page := func(keys ...string) string {
		var b strings.Builder
		b.WriteString("<ListBucketResult><IsTruncated>false</IsTruncated>")
		for _, key := range keys {
			fmt.Fprintf(&b, "<Contents><Key>%s</Key><Size>1</Size></Contents>", key)
		}
		b.WriteString("</ListBucketResult>")
		return b.String()
	}
	if n, err := listErr(t.Context(), on(t, answering(200, page("p/", "p/a", "p/b")))); n != 2 || err != nil {
		t.Errorf("in order: %d, %v", n, err)
	}
	if n, err := listErr(t.Context(), on(t, answering(200, page("p/b", "p/a")))); err == nil || kindsOf(err) != (kinds{}) {
		t.Errorf("out of order: %d, %v", n, err)
	}
	for _, err := range on(t, answering(200, page("p/a", "p/b"))).List(t.Context(), "", "a") {
		if err == nil {
			t.Error("a key that is not behind the one asked for")
		}
	}
	endless := strings.Replace(page("p/a"), "false", "true", 1)
	if n, err := listErr(t.Context(), on(t, answering(200, endless))); kindsOf(err) != (kinds{transient: true}) {
		t.Errorf("no way to the next page: %d, %v", n, err)
	}
}
