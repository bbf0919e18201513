package objstoretest

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/objstore"
)

// Backend is one backend on one running server.
type Backend struct {
	// Open returns a store on the given prefix (or directory) of an existing
	// bucket; the suite gives each test a prefix of its own. Two stores opened
	// on one prefix see the same objects. The suite closes it.
	Open func(t testing.TB, prefix string) objstore.Store
	// Missing returns a store on a bucket, container or root directory that does
	// not exist; nil: the backend has no such thing.
	Missing func(t testing.TB) objstore.Store
	// Denied returns a store on Open's bucket whose credentials are valid but
	// allow nothing, or are wrong; nil: the server cannot deny.
	Denied func(t testing.TB) objstore.Store

	// Requests is how many requests the server, or the transport below the
	// SDK, has seen so far; nil: they are not counted.
	Requests func() int64
	Budget   Budget

	// ListPage is how many objects one request of a listing yields at most, 0:
	// the backend has no pages.
	ListPage int
	// DeleteBatch is how many objects one request removes at most.
	DeleteBatch int
	// Coarse is the granularity of timestamps in Info, 0 for milliseconds.
	Coarse time.Duration
	// OneTime: an object has one time alone, so that Info.Modified is the timestamp
	// it was put with (files). Elsewhere it is the storage's own.
	OneTime bool
	// ListTimestamps: List tells the timestamps, without requests of their own.
	ListTimestamps bool
	// PartSize is the size of the pieces of a streamed Put, 0: it has none.
	PartSize int64
	// Quick leaves out what needs thousands of objects or tens of MiB (a slow
	// emulator, or a second server of one backend).
	Quick bool
}

// Budget is how many requests a call may cost at most.
type Budget struct {
	Open, SmallPut, Get, Stat int64
	DeletePerBatch            int64
	ListPerPage               int64
}

// Run runs the whole suite.
func Run(t *testing.T, b Backend) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, Backend)
	}{
		{"RoundTrip", testRoundTrip},
		{"Overwrite", testOverwrite},
		{"Ranges", testRanges},
		{"NotExist", testNotExist},
		{"MissingBucket", testMissingBucket},
		{"Denied", testDenied},
		{"IfAbsent", testIfAbsent},
		{"IfAbsentRace", testIfAbsentRace},
		{"List", testList},
		{"ListOrder", testListOrder},
		{"ListTimestamps", testListTimestamps},
		{"Modified", testModified},
		{"Delete", testDelete},
		{"Many", testMany},
		{"Streamed", testStreamed},
		{"AbortedByReader", testAbortedByReader},
		{"AbortedByContext", testAbortedByContext},
		{"CancelledBefore", testCancelledBefore},
		{"CancelledBody", testCancelledBody},
		{"CancelledList", testCancelledList},
		{"Concurrent", testConcurrent},
		{"SecondStore", testSecondStore},
		{"BadArguments", testBadArguments},
		{"Budget", testBudget},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, b) })
	}
	if soaking {
		t.Run("FiveGigabytes", func(t *testing.T) { testHuge(t, b) })
	}
}

var prefixes atomic.Int64

// open opens a store on a new prefix.
func (b Backend) open(t testing.TB) objstore.Store {
	s, _ := b.openPrefix(t)
	return s
}

func (b Backend) openPrefix(t testing.TB) (objstore.Store, string) {
	prefix := fmt.Sprintf("suite%d-%x", prefixes.Add(1), rand.Uint32())
	return b.reopen(t, prefix), prefix
}

func (b Backend) reopen(t testing.TB, prefix string) objstore.Store {
	t.Helper()
	s := b.Open(t, prefix)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close %s: %v", s, err)
		}
	})
	return s
}

// stamp is a time with milliseconds that no clock of this machine shows.
var stamp = time.Date(2021, 3, 4, 5, 6, 7, 89_000_000, time.UTC)

// content returns n bytes that differ everywhere, the same for each seed.
func content(seed uint64, n int64) []byte {
	b, err := io.ReadAll(generator(seed, n))
	if err != nil {
		panic(err)
	}
	return b
}

// generator yields n bytes without being an io.Seeker.
func generator(seed uint64, n int64) io.Reader {
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	return struct{ io.Reader }{io.LimitReader(rand.NewChaCha8(key), n)}
}

func put(t testing.TB, s objstore.Store, key string, body []byte) objstore.Info {
	t.Helper()
	info, err := s.Put(t.Context(), key, bytes.NewReader(body), objstore.PutOptions{Timestamp: stamp})
	if err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
	return info
}

func putString(t testing.TB, s objstore.Store, key, body string) {
	t.Helper()
	put(t, s, key, []byte(body))
}

func get(t testing.TB, s objstore.Store, key string, offset, size int64) []byte {
	t.Helper()
	r, err := s.Get(t.Context(), key, offset, size)
	if err != nil {
		t.Fatalf("get %s [%d,+%d): %v", key, offset, size, err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("read %s [%d,+%d) after %d bytes: %v", key, offset, size, len(b), err)
	}
	if err := r.Close(); err != nil {
		t.Fatalf("close %s: %v", key, err)
	}
	return b
}

func wantContent(t testing.TB, s objstore.Store, key string, want []byte) {
	t.Helper()
	if got := get(t, s, key, 0, -1); !bytes.Equal(got, want) {
		t.Fatalf("%s: have %d bytes, want %d, or other ones", key, len(got), len(want))
	}
}

func list(t testing.TB, s objstore.Store, prefix, after string) []objstore.Info {
	t.Helper()
	var infos []objstore.Info
	for info, err := range s.List(t.Context(), prefix, after) {
		if err != nil {
			t.Fatalf("list %q after %q: %v", prefix, after, err)
		}
		infos = append(infos, info)
	}
	return infos
}

func listKeys(t testing.TB, s objstore.Store, prefix, after string) string {
	t.Helper()
	var keys []string
	for _, info := range list(t, s, prefix, after) {
		keys = append(keys, info.Key)
	}
	return strings.Join(keys, " ")
}
