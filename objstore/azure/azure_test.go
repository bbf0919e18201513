package azure

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"
	"golang.org/x/sync/errgroup"

	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/objstore/objstoretest"
	"github.com/ltxstream/ltxstream/testenv/storage"
)

var stamp = time.Date(2021, 3, 4, 5, 6, 7, 89_000_000, time.UTC)

// counting counts the requests below the SDK.
type counting struct {
	http.RoundTripper
	n atomic.Int64
}

func (c *counting) RoundTrip(req *http.Request) (*http.Response, error) {
	c.n.Add(1)
	return c.RoundTripper.RoundTrip(req)
}

const testPage = 100

// rig is an azurite with one container.
type rig struct {
	server storage.AzuriteServer
	counting
}

func newRig(t *testing.T) *rig {
	if testing.Short() {
		t.Skip("needs azurite")
	}
	r := &rig{server: storage.Azurite(t)}
	transport := newTransport()
	t.Cleanup(transport.CloseIdleConnections)
	r.RoundTripper = transport
	if _, err := r.open(t, "").client.Create(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	return r
}

// config is that of a store whose blocks are of 1 MiB.
func (r *rig) config(prefix string) Config {
	return Config{Account: r.server.Account, Key: r.server.Key, Container: "archive", Prefix: prefix, Endpoint: r.server.Endpoint, BlockSize: 1 << 20, Transport: r}
}

func (r *rig) open(t testing.TB, prefix string) *Store { return openConfig(t, r.config(prefix)) }

func openConfig(t testing.TB, cfg Config) *Store {
	t.Helper()
	s, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.listPage = to.Ptr(int32(testPage))
	return s
}

func (r *rig) backend() objstoretest.Backend {
	return objstoretest.Backend{
		Open: func(t testing.TB, prefix string) objstore.Store { return r.open(t, prefix) },
		Missing: func(t testing.TB) objstore.Store {
			cfg := r.config("x")
			cfg.Container = "missing"
			return openConfig(t, cfg)
		},
		Denied: func(t testing.TB) objstore.Store {
			cfg := r.config("x")
			cfg.Key = base64.StdEncoding.EncodeToString([]byte("another key"))
			return openConfig(t, cfg)
		},
		Requests:       r.n.Load,
		Budget:         objstoretest.Budget{Open: 0, SmallPut: 1, Get: 1, Stat: 1, DeletePerBatch: 1, ListPerPage: 1},
		ListPage:       testPage,
		DeleteBatch:    1,
		ListTimestamps: true,
		PartSize:       1 << 20,
	}
}

func TestAzurite(t *testing.T) {
	r := newRig(t)
	t.Run("Suite", func(t *testing.T) { objstoretest.Run(t, r.backend()) })
	t.Run("Faults", func(t *testing.T) {
		objstoretest.RunFaults(t, func(t testing.TB, rt http.RoundTripper, prefix string) objstore.Store {
			cfg := r.config(prefix)
			cfg.Transport = rt
			cfg.BlockSize = 4 << 20
			return openConfig(t, cfg)
		})
	})
	t.Run("OwnTransport", r.testOwnTransport)
	t.Run("URL", r.testURL)
	t.Run("SAS", r.testSAS)
	t.Run("ForeignBlobs", r.testForeignBlobs)
	t.Run("Requests", r.testRequests)
	t.Run("IfAbsentStreamed", r.testIfAbsentStreamed)
	t.Run("Debris", r.testDebris)
	t.Run("StreamedRace", r.testStreamedRace)
	t.Run("BlockFails", r.testBlockFails)
	t.Run("LostCommit", r.testLostCommit)
	t.Run("TooManyBlocks", r.testTooManyBlocks)
}

func put(t *testing.T, s objstore.Store, key string, body io.Reader, ifAbsent bool) {
	t.Helper()
	if _, err := s.Put(t.Context(), key, body, objstore.PutOptions{Timestamp: stamp.In(time.FixedZone("", 3600)), IfAbsent: ifAbsent}); err != nil {
		t.Fatal(err)
	}
}

func listed(t *testing.T, s objstore.Store, prefix, after string) (keys []string) {
	t.Helper()
	for info, err := range s.List(t.Context(), prefix, after) {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	return keys
}

// noise yields n bytes that differ everywhere, the same for each seed.
func noise(seed byte, n int64) io.Reader {
	return struct{ io.Reader }{io.LimitReader(rand.NewChaCha8([32]byte{seed}), n)}
}

// testOwnTransport: Close leaves nothing behind (goleak would tell).
func (r *rig) testOwnTransport(t *testing.T) {
	cfg := r.config("own")
	cfg.Transport = nil
	s := openConfig(t, cfg)
	put(t, s, "a/x.ltx", strings.NewReader("x"), false)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// testURL opens a store as a command does, credentials from the environment.
func (r *rig) testURL(t *testing.T) {
	for name, env := range map[string]map[string]string{
		"key":        {"AZURE_STORAGE_KEY": r.server.Key},
		"litestream": {"LITESTREAM_AZURE_ACCOUNT_KEY": r.server.Key},
		"string":     {"AZURE_STORAGE_CONNECTION_STRING": fmt.Sprintf("BlobEndpoint=%s;AccountName=%s;AccountKey=%s;", r.server.Endpoint, r.server.Account, r.server.Key)},
	} {
		t.Run(name, func(t *testing.T) {
			for name, value := range env {
				t.Setenv(name, value)
			}
			text := fmt.Sprintf("abs://%s@archive/by-url?endpoint=%s", r.server.Account, r.server.Endpoint)
			if name == "string" {
				text = "abs://archive/by-url"
			}
			s := openURL(t, text)
			defer s.Close()
			put(t, s, "a/x.ltx", strings.NewReader(name), false)
			if got, err := objstore.ReadAll(t.Context(), s, "a/x.ltx"); err != nil || string(got) != name {
				t.Fatalf("%q, %v", got, err)
			}
		})
	}
}

// testSAS: the permissions that the package asks for suffice, and a SAS that
// was refused does not show in the error.
func (r *rig) testSAS(t *testing.T) {
	token := func(perms sas.ContainerPermissions) string {
		u, err := r.open(t, "").client.GetSASURL(perms, time.Now().Add(time.Hour), nil)
		if err != nil {
			t.Fatal(err)
		}
		_, query, _ := strings.Cut(u, "?")
		return query
	}
	cfg := r.config("sas")
	cfg.Key, cfg.SASToken = "", "?"+token(sas.ContainerPermissions{Read: true, Create: true, Write: true, Delete: true, List: true})
	s := openConfig(t, cfg)
	opts := objstore.PutOptions{Timestamp: stamp, IfAbsent: true}
	for _, n := range []int64{10, 3 << 20} {
		key := fmt.Sprintf("a/%d.ltx", n)
		if _, err := s.Put(t.Context(), key, noise(1, n), opts); err != nil {
			t.Fatal(err)
		}
		if _, err := objstore.ReadAll(t.Context(), s, key); err != nil {
			t.Fatal(err)
		}
		if info, err := s.Stat(t.Context(), key); err != nil || info.Size != n {
			t.Fatalf("%+v, %v", info, err)
		}
	}
	if n, err := objstore.DeletePrefix(t.Context(), s, ""); err != nil || n != 2 {
		t.Fatalf("deleted %d, %v", n, err)
	}

	cfg.SASToken = token(sas.ContainerPermissions{Read: true})
	s = openConfig(t, cfg)
	_, err := s.Put(t.Context(), "a/x.ltx", strings.NewReader("x"), opts)
	if !errors.Is(err, fs.ErrPermission) || strings.Contains(err.Error(), "sig") || strings.Contains(err.Error(), "\n") {
		t.Errorf("put with a token to read: %v", err)
	}
	cfg.Endpoint = "http://127.0.0.1:1/" + r.server.Account
	_, err = openConfig(t, cfg).Stat(t.Context(), "a/x.ltx")
	if !errors.Is(err, objstore.ErrTransient) || strings.Contains(err.Error(), "sig") || !strings.Contains(err.Error(), "refused") {
		t.Errorf("nobody listens: %v", err)
	}
}

// testForeignBlobs: what others put, and how.
func (r *rig) testForeignBlobs(t *testing.T) {
	s := r.open(t, "foreign")
	for name, meta := range map[string]map[string]*string{
		"lit.ltx":          {"LitestreamTimestamp": to.Ptr("2024-05-06T09:08:09.123456789+02:00"), "other": to.Ptr("x")},
		"none.ltx":         nil,
		"nonsense.ltx":     {metaTimestamp: to.Ptr("yesterday"), "LTXstreamSum": to.Ptr("A1")},
		"not a key.ltx":    nil,
		".hidden/x.ltx":    nil,
		"dir/deep/ünï.ltx": nil,
	} {
		if _, err := s.blob(name).UploadBuffer(t.Context(), []byte("x"), &blockblob.UploadBufferOptions{Metadata: meta}); err != nil {
			t.Fatal(err)
		}
	}
	if got := fmt.Sprint(listed(t, s, "", "")); got != "[lit.ltx none.ltx nonsense.ltx]" {
		t.Fatalf("listed %s", got)
	}
	check := func(how string, info objstore.Info) {
		t.Helper()
		want := map[string]time.Time{"lit.ltx": time.Date(2024, 5, 6, 7, 8, 9, 123456789, time.UTC)}
		if !info.Timestamp.Equal(want[info.Key]) || info.Timestamp.Location() != time.UTC && !info.Timestamp.IsZero() {
			t.Errorf("%s %s: timestamp %s", how, info.Key, info.Timestamp)
		}
		if sum := info.Meta["sum"]; how == "stat" && (sum == "A1") != (info.Key == "nonsense.ltx") {
			t.Errorf("stat %s: meta %v", info.Key, info.Meta)
		}
	}
	for info, err := range s.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		check("list", info)
		info, err := s.Stat(t.Context(), info.Key)
		if err != nil {
			t.Fatal(err)
		}
		check("stat", info)
	}
	props, err := func() (map[string]*string, error) {
		put(t, s, "ours.ltx", strings.NewReader("x"), false)
		p, err := s.blob("ours.ltx").GetProperties(t.Context(), nil)
		return p.Metadata, err
	}()
	if err != nil || len(props) != 1 {
		t.Fatalf("our metadata is %v, %v", props, err)
	}
	for name, value := range props {
		if !strings.EqualFold(name, "litestreamtimestamp") || *value != "2021-03-04T05:06:07.089Z" {
			t.Errorf("our timestamp is %s=%s", name, *value)
		}
	}
}

// testRequests counts what the suite's budget does not.
func (r *rig) testRequests(t *testing.T) {
	s := r.open(t, "requests")
	for _, c := range []struct {
		size     int64
		ifAbsent bool
		want     int64
	}{
		{0, false, 1}, {1<<20 - 1, false, 1}, {1<<20 - 1, true, 1},
		{1 << 20, false, 2}, {1 << 20, true, 3}, {5<<20 + 1, false, 7}, {5<<20 + 1, true, 8},
	} {
		before := r.n.Load()
		key := fmt.Sprintf("%d-%t.ltx", c.size, c.ifAbsent)
		put(t, s, key, noise(1, c.size), c.ifAbsent)
		if got := r.n.Load() - before; got != c.want {
			t.Errorf("put of %d bytes, if absent %t: %d requests, want %d", c.size, c.ifAbsent, got, c.want)
		}
	}
	before := r.n.Load()
	if _, err := s.Put(t.Context(), "1048576-true.ltx", noise(1, 9<<20), objstore.PutOptions{Timestamp: stamp, IfAbsent: true}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("put to a taken key: %v", err)
	}
	if got := r.n.Load() - before; got != 1 {
		t.Errorf("a large object was sent to a taken key: %d requests", got)
	}
}

func comp(req *http.Request) string { return req.URL.Query().Get("comp") }

// testIfAbsentStreamed: the key is taken after the check.
func (r *rig) testIfAbsentStreamed(t *testing.T) {
	s := r.open(t, "taken")
	for name, c := range map[string]struct {
		at    string // the kind of request that the other writer is ahead of
		other int64  // bytes
	}{
		"before the first block":            {"block", 10},
		"before the commit, by one request": {"blocklist", 10},
		"before the commit, by blocks":      {"blocklist", 2 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			key := strings.ReplaceAll(strings.ReplaceAll(name, ",", ""), " ", "-") + ".ltx"
			taken := false
			cfg := r.config("taken")
			cfg.Concurrency = 1
			cfg.Transport = gate{r, func(req *http.Request) (*http.Response, error) {
				if comp(req) == c.at && !taken {
					taken = true
					put(t, s, key, noise(2, c.other), true)
				}
				return nil, nil
			}}
			_, err := openConfig(t, cfg).Put(t.Context(), key, noise(1, 3<<20), objstore.PutOptions{Timestamp: stamp, IfAbsent: true})
			if kindOf(err) != "exists" {
				t.Errorf("%v", err)
			}
			if info, err := s.Stat(t.Context(), key); err != nil || info.Size != c.other {
				t.Errorf("%+v, %v", info, err)
			}
		})
	}
}

// testDebris: the blocks of an upload that broke off do not stand in the way.
func (r *rig) testDebris(t *testing.T) {
	cfg := r.config("debris")
	cfg.Transport = gate{r, func(req *http.Request) (*http.Response, error) {
		if comp(req) == "block" && req.ContentLength == 0 {
			t.Error("an empty block, which Azure refuses")
		}
		return nil, nil
	}}
	s := openConfig(t, cfg)
	for _, n := range []int64{0, 10, 1 << 20, 3 << 20} {
		key := fmt.Sprintf("a/%d.ltx", n)
		debris := base64.StdEncoding.EncodeToString(make([]byte, blockIDLen))
		if _, err := s.blob(key).StageBlock(t.Context(), debris, streaming.NopCloser(strings.NewReader("debris")), nil); err != nil {
			t.Fatal(err)
		}
		put(t, s, key, noise(1, n), true)
		if info, err := s.Stat(t.Context(), key); err != nil || info.Size != n || !info.Timestamp.Equal(stamp) {
			t.Errorf("%+v, %v", info, err)
		}
		want, _ := io.ReadAll(noise(1, n))
		if got, err := objstore.ReadAll(t.Context(), s, key); err != nil || string(got) != string(want) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		if _, err := s.Put(t.Context(), key, noise(3, n), objstore.PutOptions{Timestamp: stamp, IfAbsent: true}); !errors.Is(err, fs.ErrExist) {
			t.Errorf("the second one: %v", err)
		}
	}
}

// testStreamedRace: of streamed puts to one key each is whole or an error that
// says to try again.
func (r *rig) testStreamedRace(t *testing.T) {
	s := r.open(t, "race")
	for range 3 {
		var g errgroup.Group
		for i := range int64(4) {
			g.Go(func() error {
				_, err := s.Put(t.Context(), "a/x.ltx", noise(byte(i), 2<<20+i), objstore.PutOptions{Timestamp: stamp})
				if err != nil && !errors.Is(err, objstore.ErrTransient) {
					return err
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		got, err := objstore.ReadAll(t.Context(), s, "a/x.ltx")
		if err != nil {
			t.Fatal(err)
		}
		winner := int64(len(got)) - 2<<20
		want, _ := io.ReadAll(noise(byte(winner), int64(len(got))))
		if string(got) != string(want) {
			t.Fatalf("%d bytes that nobody put", len(got))
		}
	}
}

// endless counts what is read of it.
type endless struct{ n atomic.Int64 }

func (e *endless) Read(p []byte) (int, error) {
	e.n.Add(int64(len(p)))
	return len(p), nil
}

// testBlockFails: a block is tried again; where it fails for good the source is
// not read on, and nothing is seen.
func (r *rig) testBlockFails(t *testing.T) {
	cfg := r.config("blocks")
	var blocks, failures atomic.Int64
	cfg.Transport = gate{r, func(req *http.Request) (*http.Response, error) {
		if comp(req) == "block" && blocks.Add(1) > 3 && failures.Add(-1) >= 0 {
			return answerWith(req, 503, "ServerBusy", ""), nil
		}
		return nil, nil
	}}
	s := openConfig(t, cfg)
	failures.Store(2)
	put(t, s, "twice.ltx", noise(1, 6<<20), true)
	if got, err := objstore.ReadAll(t.Context(), s, "twice.ltx"); err != nil || len(got) != 6<<20 {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	failures.Store(1 << 40)
	source := &endless{}
	_, err := s.Put(t.Context(), "always.ltx", source, objstore.PutOptions{Timestamp: stamp})
	if !errors.Is(err, objstore.ErrTransient) || !strings.Contains(err.Error(), "ServerBusy") || strings.Count(err.Error(), "always.ltx") != 1 {
		t.Fatalf("an endless put whose blocks fail: %v", err)
	}
	if n := source.n.Load(); n > 20<<20 {
		t.Errorf("read %d bytes of the source", n)
	}
	if got := fmt.Sprint(listed(t, s, "", "")); got != "[twice.ltx]" {
		t.Errorf("listed %s", got)
	}
}

// testLostCommit: the commit is tried again, unless that would meet what it made.
func (r *rig) testLostCommit(t *testing.T) {
	cfg := r.config("lost")
	var lose atomic.Bool
	cfg.Transport = gate{r, func(req *http.Request) (*http.Response, error) {
		if comp(req) == "blocklist" && lose.CompareAndSwap(true, false) {
			resp, err := r.RoundTrip(req)
			if err != nil {
				return nil, err
			}
			resp.Body.Close()
			return nil, io.EOF
		}
		return nil, nil
	}}
	s := openConfig(t, cfg)
	lose.Store(true)
	put(t, s, "any.ltx", noise(1, 2<<20), false)
	lose.Store(true)
	_, err := s.Put(t.Context(), "absent.ltx", noise(1, 2<<20), objstore.PutOptions{Timestamp: stamp, IfAbsent: true})
	if kindOf(err) != "transient" {
		t.Errorf("if absent: %v", err)
	}
	if got := fmt.Sprint(listed(t, s, "", "")); got != "[absent.ltx any.ltx]" {
		t.Errorf("listed %s", got)
	}
}

// testTooManyBlocks: known before the commit.
func (r *rig) testTooManyBlocks(t *testing.T) {
	s := r.open(t, "many")
	s.maxBlocks = 5
	put(t, s, "five.ltx", noise(1, 5<<20), false)
	_, err := s.Put(t.Context(), "six.ltx", noise(1, 5<<20+1), objstore.PutOptions{Timestamp: stamp})
	if err == nil || !strings.Contains(err.Error(), "block-size") || errors.Is(err, objstore.ErrTransient) {
		t.Errorf("a block too many: %v", err)
	}
	if got := fmt.Sprint(listed(t, s, "", "")); got != "[five.ltx]" {
		t.Errorf("listed %s", got)
	}
}
