package natsobj

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/testenv"
)

// TestNothingIsLeftBehind: of what was aborted, replaced and deleted.
func TestNothingIsLeftBehind(t *testing.T) {
	s, _ := archive(t)
	put(t, s, "a.ltx", content(3*chunkSize+1))
	wantChunks(t, s, 1)
	put(t, s, "a.ltx", content(2))
	wantChunks(t, s, 1)
	broken := errors.New("broken")
	for _, n := range []int{0, 1, chunkSize, 40 * chunkSize} {
		_, err := s.Put(t.Context(), "b.ltx", io.MultiReader(bytes.NewReader(content(n)), failing{broken}), objstore.PutOptions{Timestamp: stamp})
		if !errors.Is(err, broken) {
			t.Fatalf("put: %v", err)
		}
		wantChunks(t, s, 1)
	}
	_, err := s.Put(t.Context(), "a.ltx", bytes.NewReader(content(4*chunkSize)), objstore.PutOptions{Timestamp: stamp, IfAbsent: true})
	if err == nil {
		t.Fatal("put if absent succeeds")
	}
	wantChunks(t, s, 1)
	nameAll(t, s)
	remove(t, s, "a.ltx")
	wantChunks(t, s, 0)
	if left := stored(t, s, ">"); len(left) != 1 {
		t.Errorf("left %v", left)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// TestIfAbsentStopsEarly: a large object that is there already is not sent.
func TestIfAbsentStopsEarly(t *testing.T) {
	s, _ := archive(t)
	put(t, s, "a.ltx", []byte("x"))
	before := s.nc.Stats().OutBytes
	_, err := s.Put(t.Context(), "a.ltx", bytes.NewReader(content(50*chunkSize)), objstore.PutOptions{Timestamp: stamp, IfAbsent: true})
	if err == nil {
		t.Fatal("it succeeds")
	}
	if sent := s.nc.Stats().OutBytes - before; sent > 3*chunkSize {
		t.Errorf("%d bytes were sent", sent)
	}
}

func TestFullBucket(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a server")
	}
	js := testenv.Node(t).JetStream()
	if _, err := js.CreateObjectStore(t.Context(), jetstream.ObjectStoreConfig{Bucket: "archive", MaxBytes: 10 * chunkSize}); err != nil {
		t.Fatal(err)
	}
	s := open(t, js)
	put(t, s, "a.ltx", content(chunkSize))
	_, err := s.Put(t.Context(), "b.ltx", bytes.NewReader(content(40*chunkSize)), objstore.PutOptions{Timestamp: stamp})
	if err == nil || errors.Is(err, objstore.ErrTransient) || !strings.Contains(err.Error(), "bucket archive is full") {
		t.Fatalf("put into a full bucket: %v", err)
	}
	if got := keys(t, s, ""); got != "a.ltx" {
		t.Errorf("listed %q", got)
	}
	wantChunks(t, s, 1)
}

func TestCreate(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a server")
	}
	js := testenv.Node(t).JetStream()
	s := open(t, js)
	_, err := s.Put(t.Context(), "a.ltx", bytes.NewReader(content(5)), objstore.PutOptions{Timestamp: stamp})
	if err == nil || !strings.Contains(err.Error(), "nats object add archive --replicas 1") {
		t.Fatalf("put: %v, want how to create it", err)
	}
	list := func() (err error) {
		for info, listed := range s.List(t.Context(), "", "") {
			if err = listed; err == nil {
				t.Errorf("listed %+v", info)
			}
		}
		return err
	}
	if err := list(); !errors.Is(err, errNoBucket) {
		t.Errorf("list: %v, want errNoBucket", err)
	}
	s.cfg.Create = true
	if err := list(); err != nil { // nothing is there yet
		t.Error(err)
	}
	if err := s.Delete(t.Context(), "a.ltx"); !errors.Is(err, errNoBucket) {
		t.Fatalf("delete creates the bucket, or %v", err)
	}
	put(t, s, "a.ltx", content(3*chunkSize))
	put(t, open(t, js, func(c *Config) { c.Bucket, c.Create = "second", true }), "empty.ltx", nil)
	info, err := js.Stream(t.Context(), "OBJ_archive")
	if err != nil {
		t.Fatal(err)
	}
	c := info.CachedInfo().Config
	if c.Storage != jetstream.FileStorage || c.Replicas != 1 || c.Compression != jetstream.NoCompression || !c.AllowDirect || !c.AllowRollup || c.Discard != jetstream.DiscardNew || c.MaxAge != 0 {
		t.Errorf("created %+v", c)
	}
	if got := get(t, s, "a.ltx", 0, -1); !bytes.Equal(got, content(3*chunkSize)) {
		t.Error("other content")
	}
	_, err = open(t, js, func(c *Config) { c.Bucket, c.Create, c.Replicas = "three", true, 3 }).Put(t.Context(), "a", bytes.NewReader(nil), objstore.PutOptions{Timestamp: stamp})
	if err == nil || errors.Is(err, objstore.ErrTransient) || !strings.Contains(err.Error(), "create bucket three with 3 replicas") {
		t.Errorf("three replicas on one server: %v", err)
	}
}

// TestDomain: the API of a JetStream domain has subjects of its own.
func TestDomain(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a server")
	}
	nc := testenv.Node(t, func(c *testenv.Config) { c.Domain = "hub" }).Connect()
	js, err := jetstream.NewWithDomain(nc, "hub")
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, js, func(c *Config) { c.Create = true })
	put(t, s, "a.ltx", content(3*chunkSize))
	if got := get(t, s, "a.ltx", 5, 10); len(got) != 10 || keys(t, s, "") != "a.ltx" {
		t.Error("not there")
	}
	remove(t, s, "a.ltx")
}

// TestSmallMaxPayload: chunks and requests that fit the server.
func TestSmallMaxPayload(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a server")
	}
	s := open(t, testenv.Node(t, func(c *testenv.Config) { c.MaxPayload = 16 << 10 }).JetStream(), func(c *Config) { c.Create = true })
	body := content(300_000)
	put(t, s, "a.ltx", body)
	if got := get(t, s, "a.ltx", 0, -1); !bytes.Equal(got, body) {
		t.Error("other content")
	}
	all := level("db/", 300)
	putMany(t, s, all)
	if got := keys(t, s, "db/"); got != strings.Join(all, " ") {
		t.Error("other keys")
	}
}

// TestWithoutDirectGet: an old bucket that does not allow it works, slowly.
func TestWithoutDirectGet(t *testing.T) {
	s, _ := archive(t)
	stream, err := s.cfg.JS.Stream(t.Context(), s.stream)
	if err != nil {
		t.Fatal(err)
	}
	cfg := stream.CachedInfo().Config
	cfg.AllowDirect = false
	if _, err := s.cfg.JS.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	body := content(5 * chunkSize)
	put(t, s, "a.ltx", body)
	put(t, s, "b.ltx", body)
	put(t, s, "c.ltx", body)
	if got := get(t, s, "b.ltx", 0, -1); !bytes.Equal(got, body) {
		t.Error("other content")
	}
	if got := get(t, s, "b.ltx", chunkSize-1, 2); !bytes.Equal(got, body[chunkSize-1:chunkSize+1]) {
		t.Error("other range")
	}
	if got := keys(t, s, ""); got != "a.ltx b.ltx c.ltx" {
		t.Errorf("listed %q", got)
	}
}
