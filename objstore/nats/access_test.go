package natsobj

import (
	"bytes"
	"errors"
	"io/fs"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/testenv"
)

// The permissions in doc.go.
var (
	readerMay  = []string{"$JS.API.STREAM.INFO.OBJ_archive", "$JS.API.STREAM.MSG.GET.OBJ_archive", "$JS.API.DIRECT.GET.OBJ_archive"}
	writerMay  = append([]string{"$O.archive.>", "$JS.API.STREAM.PURGE.OBJ_archive"}, readerMay...)
	creatorMay = append([]string{"$JS.API.STREAM.CREATE.OBJ_archive"}, writerMay...)
)

func TestPermissions(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a server")
	}
	user := func(name string, publish []string) testenv.User {
		return testenv.User{Name: name, Password: "x", Publish: publish, Subscribe: []string{"_INBOX_" + name + ".>"}}
	}
	srv := testenv.Node(t, testenv.Users(
		testenv.User{Name: "admin", Password: "x"}, user("reader", readerMay), user("writer", writerMay), user("creator", creatorMay),
		testenv.User{Name: "deaf", Password: "x", Publish: writerMay, Subscribe: []string{"nothing"}},
	))
	as := func(name string, edit ...func(*Config)) *Store {
		quiet := nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})
		js := srv.JetStream(nats.UserInfo(name, "x"), nats.CustomInboxPrefix("_INBOX_"+name), quiet)
		return open(t, js, append([]func(*Config){patience(time.Minute)}, edit...)...)
	}
	body := content(20 * chunkSize)
	creating := func(c *Config) { c.Create = true }
	_, err := as("writer", creating).Put(t.Context(), "a.ltx", bytes.NewReader(body), objstore.PutOptions{Timestamp: stamp})
	if !errors.Is(err, fs.ErrPermission) {
		t.Fatalf("the writer creates a bucket: %v", err)
	}
	put(t, as("creator", creating), "a.ltx", body)

	w := as("writer")
	put(t, w, "a.ltx", body)
	put(t, w, "b.ltx", body)
	nameAll(t, w)
	remove(t, w, "b.ltx")
	if _, err := w.sweep(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	r := as("reader")
	for _, s := range []*Store{w, r} {
		if got := get(t, s, "a.ltx", 0, -1); !bytes.Equal(got, body) {
			t.Error("other content")
		}
		if got := keys(t, s, ""); got != "a.ltx" {
			t.Errorf("listed %q", got)
		}
		if _, err := s.Stat(t.Context(), "a.ltx"); err != nil {
			t.Error(err)
		}
	}
	start := time.Now()
	if _, err := r.Put(t.Context(), "c.ltx", bytes.NewReader(body), objstore.PutOptions{Timestamp: stamp}); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("the reader puts: %v", err)
	}
	if err := r.Delete(t.Context(), "a.ltx"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("the reader deletes: %v", err)
	}
	if d := time.Since(start); d > 30*time.Second {
		t.Errorf("denials took %s to be seen", d)
	}
	if got := keys(t, r, ""); got != "a.ltx" {
		t.Errorf("listed %q", got)
	}
	if _, err := as("deaf", patience(300*time.Millisecond)).Stat(t.Context(), "a.ltx"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("who may not get answers: %v", err)
	}
}
