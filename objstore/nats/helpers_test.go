package natsobj

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/testenv"
)

var stamp = time.Date(2021, 3, 4, 5, 6, 7, 89_000_000, time.UTC)

// archive runs a server with a bucket of that name and returns a store on it.
func archive(t testing.TB, edit ...func(*Config)) (*Store, jetstream.ObjectStore) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a server")
	}
	js := testenv.Node(t).JetStream()
	b := bucket(t, js, "archive", 1)
	return open(t, js, edit...), b
}

// bucket creates a bucket as the nats command does.
func bucket(t testing.TB, js jetstream.JetStream, name string, replicas int) jetstream.ObjectStore {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for try := 1; ; try++ {
		b, err := js.CreateObjectStore(ctx, jetstream.ObjectStoreConfig{Bucket: name, Replicas: replicas})
		if err == nil {
			return b
		}
		if try == 10 { // the server may still be deleting one of that name
			t.Fatalf("create bucket %s: %v", name, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func open(t testing.TB, js jetstream.JetStream, edit ...func(*Config)) *Store {
	t.Helper()
	cfg := Config{JS: js, Bucket: "archive"}
	for _, e := range edit {
		e(&cfg)
	}
	s, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func under(prefix string) func(*Config) { return func(c *Config) { c.Prefix = prefix } }

func patience(d time.Duration) func(*Config) { return func(c *Config) { c.Timeout = d } }

// reopen returns another store on the same connection, which knows nothing.
func reopen(t testing.TB, s *Store) *Store {
	t.Helper()
	return open(t, s.cfg.JS, func(c *Config) { *c = s.cfg })
}

// content returns n bytes that differ everywhere.
func content(n int) []byte {
	var key [32]byte
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(b)
	return b
}

func put(t testing.TB, s objstore.Store, key string, body []byte) {
	t.Helper()
	if _, err := s.Put(t.Context(), key, bytes.NewReader(body), objstore.PutOptions{Timestamp: stamp}); err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
}

func get(t testing.TB, s objstore.Store, key string, offset, size int64) []byte {
	t.Helper()
	r, err := s.Get(t.Context(), key, offset, size)
	if err != nil {
		t.Fatalf("get %s: %v", key, err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("read %s after %d bytes: %v", key, len(b), err)
	}
	return b
}

func keys(t testing.TB, s objstore.Store, prefix string) string {
	t.Helper()
	var keys []string
	for i, err := range s.List(t.Context(), prefix, "") {
		if err != nil {
			t.Fatalf("list %q: %v", prefix, err)
		}
		keys = append(keys, i.Key)
	}
	return strings.Join(keys, " ")
}

func remove(t testing.TB, s objstore.Store, keys ...string) {
	t.Helper()
	if err := s.Delete(t.Context(), keys...); err != nil {
		t.Fatal(err)
	}
}

// stored counts the messages that match a filter, by subject.
func stored(t testing.TB, s *Store, filter string) map[string]uint64 {
	t.Helper()
	i, err := s.info(t.Context(), filter, 0)
	if err != nil {
		t.Fatal(err)
	}
	return i.State.Subjects
}

// wantChunks fails unless there are the chunks of so many objects.
func wantChunks(t testing.TB, s *Store, objects int) {
	t.Helper()
	if have := stored(t, s, s.allChunks()); len(have) != objects {
		t.Errorf("chunks of %d objects, want %d: %v", len(have), objects, have)
	}
}

// level returns n keys of one level.
func level(prefix string, n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("%s%016x-%016x.ltx", prefix, i+1, i+1)
	}
	return keys
}

// putMany puts an empty object for each key, by metas alone, many at once.
func putMany(t testing.TB, s *Store, keys []string) {
	t.Helper()
	w := &window{s: s}
	defer w.close()
	for _, key := range keys {
		u := s.newUpload(key, objstore.PutOptions{})
		m := metaMessage(t, s, u)
		if err := w.publish(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.drain(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func metaMessage(t testing.TB, s *Store, u *upload) *nats.Msg {
	t.Helper()
	data, err := u.meta(objstore.PutOptions{Timestamp: stamp})
	if err != nil {
		t.Fatal(err)
	}
	return onlyOne(s.metaSubject(s.prefix+u.key), data)
}

// named publishes the names of all objects.
func nameAll(t testing.TB, s *Store) {
	t.Helper()
	for {
		names, mark, err := s.unnamed(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(names) == 0 {
			return
		}
		if err := s.publishNames(t.Context(), names, mark); err != nil {
			t.Fatal(err)
		}
	}
}
