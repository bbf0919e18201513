package gcs

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/objstore/objstoretest"
)

var stamp = time.Date(2026, 1, 2, 3, 4, 5, 678_000_000, time.UTC)

func put(t *testing.T, s *Store, key, body string) {
	t.Helper()
	if _, err := s.Put(t.Context(), key, strings.NewReader(body), objstore.PutOptions{Timestamp: stamp}); err != nil {
		t.Fatal(err)
	}
}

func keys(t *testing.T, s *Store, prefix string) string {
	t.Helper()
	var keys []string
	for info, err := range s.List(t.Context(), prefix, "") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	return strings.Join(keys, " ")
}

// foreign puts an object as another program would.
func foreign(t *testing.T, s *Store, name string, metadata map[string]string) {
	t.Helper()
	w := s.bucket.Object(name).NewWriter(t.Context())
	w.ChunkSize, w.Metadata = 0, metadata
	if _, err := io.WriteString(w, "x"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestForeignObjects: Litestream's are read as ours, other things left alone.
func TestForeignObjects(t *testing.T) {
	t.Parallel()
	s := open(t, Config{Bucket: testBucket, Prefix: "p", Endpoint: startServer(t).URL})
	defer s.Close()
	for name, text := range map[string]string{
		"none": "", "second": "2026-01-02T03:04:05Z", "nano": "2026-01-02T03:04:05.678912345Z", "zone": "2026-01-02T05:04:05.678+02:00", "bad": "yesterday",
	} {
		metadata := map[string]string{"Litestream-Timestamp": text, "other": "x"}
		if text == "" {
			metadata = nil
		}
		foreign(t, s, "p/t/"+name+".ltx", metadata)
	}
	for _, name := range []string{"p/", "p/a b.ltx", "p/t/.hidden", "p/t/", "p2/t/x.ltx", "px.ltx", "t/x.ltx"} {
		foreign(t, s, name, nil)
	}
	want := map[string]time.Time{
		"t/none.ltx": {}, "t/second.ltx": stamp.Truncate(time.Second), "t/nano.ltx": stamp.Add(912345), "t/zone.ltx": stamp, "t/bad.ltx": {},
	}
	n := 0
	for info, err := range s.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		n++
		stat, err := s.Stat(t.Context(), info.Key)
		if err != nil {
			t.Fatal(err)
		}
		at, ok := want[info.Key]
		for _, info := range []objstore.Info{info, stat} {
			if !ok || !info.Timestamp.Equal(at) || info.Timestamp.Location() != time.UTC || info.Meta != nil {
				t.Errorf("%+v, want timestamp %s, no meta", info, at)
			}
		}
	}
	if n != len(want) {
		t.Errorf("listed %d objects, want %d", n, len(want))
	}
}

// TestMetadata: names and texts as other programs find them.
func TestMetadata(t *testing.T) {
	t.Parallel()
	s := open(t, Config{Bucket: testBucket, Prefix: "p", Endpoint: startServer(t).URL})
	defer s.Close()
	at := stamp.Add(999 * time.Microsecond).In(time.FixedZone("", 3600))
	if _, err := s.Put(t.Context(), "a.ltx", strings.NewReader("x"), objstore.PutOptions{Timestamp: at, Meta: map[string]string{"checksum": "1f"}}); err != nil {
		t.Fatal(err)
	}
	attrs, err := s.bucket.Object("p/a.ltx").Attrs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if m := attrs.Metadata; len(m) != 2 || m["litestream-timestamp"] != "2026-01-02T03:04:05.678Z" || m["ltxstream-checksum"] != "1f" {
		t.Errorf("metadata %v", m)
	}
}

// faulty opens a store whose requests can be broken.
func faulty(t *testing.T) (*Store, *objstoretest.Faults) {
	t.Helper()
	server := startServer(t)
	faults := objstoretest.NewFaults(nil)
	t.Cleanup(faults.CloseIdleConnections)
	return open(t, Config{Bucket: testBucket, Prefix: "p", Endpoint: server.URL, HTTPClient: &http.Client{Transport: faults}, ChunkSize: chunkUnit}), faults
}

// TestDeleteSomeFail: what can go goes, and the error names the rest.
func TestDeleteSomeFail(t *testing.T) {
	t.Parallel()
	s, faults := faulty(t)
	var all []string
	for _, c := range "abcdefghijklmnopqrstuvwxyz" {
		all = append(all, string(c)+".ltx")
		put(t, s, all[len(all)-1], "x")
	}
	faults.Set(objstoretest.Rule{
		Fault: objstoretest.Answer(http.StatusForbidden, "AccessDenied"), Times: objstoretest.Always,
		Match: func(req *http.Request) bool {
			return strings.HasSuffix(req.URL.Path, "/c.ltx") || strings.HasSuffix(req.URL.Path, "/x.ltx")
		},
	})
	err := s.Delete(t.Context(), all...)
	failed, ok := errors.AsType[*objstore.DeleteError](err)
	if !ok || len(failed.Failed) != 2 || failed.Failed["c.ltx"] == nil || failed.Failed["x.ltx"] == nil || !errors.Is(err, fs.ErrPermission) {
		t.Errorf("delete: %v, want fs.ErrPermission for two objects", err)
	}
	if got := keys(t, s, ""); got != "c.ltx x.ltx" {
		t.Errorf("left %q", got)
	}
}

// TestUploadForgotten: a 404 for a piece of an upload says nothing of the bucket
// or the object.
func TestUploadForgotten(t *testing.T) {
	t.Parallel()
	s, faults := faulty(t)
	faults.Set(objstoretest.Rule{
		Fault: objstoretest.Answer(http.StatusNotFound, "NotFound"), Skip: 1, Times: 1,
		Match: func(req *http.Request) bool { return req.URL.Query().Get("upload_id") != "" },
	})
	body := bytes.NewReader(make([]byte, 3*chunkUnit))
	_, err := s.Put(t.Context(), "a.ltx", body, objstore.PutOptions{Timestamp: stamp})
	if faults.Clear() != 1 || !errors.Is(err, objstore.ErrTransient) || errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("%v, want objstore.ErrTransient", err)
	}
	if got := keys(t, s, ""); got != "" {
		t.Fatalf("left %q", got)
	}
}

// TestPiecesTriedAgain: a stream that cannot be read twice survives a busy
// server.
func TestPiecesTriedAgain(t *testing.T) {
	t.Parallel()
	s, faults := faulty(t)
	body := strings.Repeat("0123456789abcdef", 3*chunkUnit/16) + "end"
	for name, fault := range map[string]objstoretest.Fault{
		"busy.ltx": objstoretest.Answer(http.StatusServiceUnavailable, "SlowDown"), "lost.ltx": objstoretest.ResetAfter,
	} {
		faults.Set(objstoretest.Rule{Fault: fault, Skip: 2, Times: 2})
		info, err := s.Put(t.Context(), name, io.MultiReader(strings.NewReader(body)), objstore.PutOptions{Timestamp: stamp, IfAbsent: true})
		if faults.Clear() != 2 || err != nil || info.Size != int64(len(body)) {
			t.Fatalf("%s: %+v, %v", name, info, err)
		}
		if b, err := objstore.ReadAll(t.Context(), s, name); err != nil || string(b) != body {
			t.Fatalf("%s: read %d bytes, %v", name, len(b), err)
		}
	}
}

// flipped replaces from by to in what it reads.
type flipped struct {
	io.ReadCloser
	from, to string
}

func (f flipped) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	copy(p, bytes.ReplaceAll(p[:n], []byte(f.from), []byte(f.to)))
	return n, err
}

// TestChecksums: bytes that change on their way are noticed at both ends.
func TestChecksums(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	transport := newTransport()
	t.Cleanup(transport.CloseIdleConnections)
	sane := open(t, Config{Bucket: testBucket, Endpoint: server.URL, HTTPClient: &http.Client{Transport: transport}})
	up := open(t, Config{Bucket: testBucket, Endpoint: server.URL, HTTPClient: &http.Client{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
		req = req.Clone(req.Context())
		req.Body = flipped{req.Body, "payload", "pAyload"}
		return transport.RoundTrip(req)
	})}})
	_, err := up.Put(t.Context(), "a.ltx", strings.NewReader("the payload"), objstore.PutOptions{Timestamp: stamp})
	if err == nil || errors.Is(err, objstore.ErrTransient) {
		t.Errorf("put of other bytes: %v, want a permanent error", err)
	}
	if got := keys(t, sane, ""); got != "" {
		t.Errorf("stored %q", got)
	}
	put(t, sane, "a.ltx", "the payload")
	down := open(t, Config{Bucket: testBucket, Endpoint: server.URL, HTTPClient: &http.Client{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
		resp, err := transport.RoundTrip(req)
		if err == nil {
			resp.Body = flipped{resp.Body, "payload", "pAyload"}
		}
		return resp, err
	})}})
	if b, err := objstore.ReadAll(t.Context(), down, "a.ltx"); !errors.Is(err, objstore.ErrDamaged) || errors.Is(err, objstore.ErrTransient) {
		t.Errorf("read %q, %v, want ErrDamaged", b, err)
	}
}
