package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/litestream"
	"github.com/ltxstream/ltxstream/testenv/storage"
)

// place is one storage as ltx-archive and Litestream call it.
type place struct {
	base, query string   // ltx-archive: base/folder?query
	flags       []string // and what it needs besides
	// replica is the URL of a folder, and more lines of a replica's configuration
	// where a URL does not suffice.
	replica func(folder string) (url string, more []string)
	env     []string
	// coarse: Litestream sees some times there in whole seconds.
	coarse bool
	node   *testenv.Server // where the place is a NATS server
}

// url is that of a folder for ltx-archive.
func (p *place) url(folder string) string { return p.base + "/" + folder + p.query }

// execute runs ltx-archive, which needs no stream.
func (p *place) execute(t testing.TB, args ...string) outcome {
	t.Helper()
	return execute(t, append(args, p.flags...)...)
}

// litestream is how a command of Litestream is told of a folder: its last
// arguments.
func (p *place) litestream(t testing.TB, folder string) []string {
	t.Helper()
	url, more := p.replica(folder)
	if more == nil {
		return []string{url}
	}
	return []string{"-config", p.config(t, folder, "/any.db"), "/any.db"}
}

// config is a configuration of Litestream for one database and folder; lines are
// of the configuration itself.
func (p *place) config(t testing.TB, folder, db string, lines ...string) string {
	t.Helper()
	url, more := p.replica(folder)
	lines = append(lines, "dbs:", "- path: "+db, "  monitor-interval: 50ms", "  replica:", "    sync-interval: 50ms")
	if url != "" {
		more = append(more, "url: "+url)
	}
	for _, line := range more {
		lines = append(lines, "    "+line)
	}
	return litestream.Config(t, strings.Join(lines, "\n")+"\n")
}

func directoryPlace(t *testing.T) *place {
	dir := "file://" + filepath.Join(t.TempDir(), "archive")
	return &place{base: dir, replica: func(folder string) (string, []string) { return dir + "/" + folder, nil }}
}

func s3Place(t *testing.T) *place {
	query := "?endpoint=" + storage.StartVersityGW(t, "bucket").URL
	return &place{
		base: "s3://bucket/some/where", query: query,
		replica: func(folder string) (string, []string) { return "s3://bucket/some/where/" + folder + query, nil },
		env:     []string{"AWS_CA_BUNDLE="}, // with one it does not start, whatever the endpoint
		coarse:  true,                       // it holds a time against when files were stored first
	}
}

func gcsPlace(t *testing.T) *place {
	server := storage.StartGCS(t, "bucket")
	return &place{
		base: "gs://bucket/some/where", query: "?endpoint=" + server.URL,
		replica: func(folder string) (string, []string) { return "gs://bucket/some/where/" + folder, nil },
		env:     []string{"STORAGE_EMULATOR_HOST=" + server.Emulator},
	}
}

func azurePlace(t *testing.T) *place {
	server := storage.Azurite(t)
	cred, err := azblob.NewSharedKeyCredential(server.Account, server.Key)
	if err != nil {
		t.Fatal(err)
	}
	client, err := azblob.NewClientWithSharedKeyCredential(server.Endpoint, cred, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CreateContainer(t.Context(), "archive", nil); err != nil {
		t.Fatal(err)
	}
	base := "abs://" + server.Account + "@archive/some/where"
	return &place{base: base, query: "?endpoint=" + server.Endpoint, replica: func(folder string) (string, []string) {
		return base + "/" + folder, []string{"endpoint: " + server.Endpoint, "account-key: " + server.Key}
	}}
}

func sftpPlace(t *testing.T) *place {
	d := storage.StartSSHD(t)
	base := "sftp://" + d.User + "@" + d.Addr + filepath.Join(t.TempDir(), "archive")
	return &place{base: base, query: "?create=true&identity=" + d.Identity + "&known-hosts=" + d.KnownHosts, coarse: true, replica: func(folder string) (string, []string) {
		return base + "/" + folder, []string{"key-path: " + d.Identity}
	}}
}

// natsPlace is a server: its folders are buckets. Litestream keeps one database in
// each, at its root.
func natsPlace(t *testing.T) *place {
	node := testenv.Node(t)
	for _, bucket := range []string{"archive", "alone", "live", "kept"} {
		if _, err := node.JetStream().CreateObjectStore(t.Context(), jetstream.ObjectStoreConfig{Bucket: bucket}); err != nil {
			t.Fatal(err)
		}
	}
	return &place{
		base: "nats:/", flags: []string{"-s", node.URL()}, node: node,
		replica: func(bucket string) (string, []string) { return node.URL() + "/" + bucket, nil },
	}
}

// eachPlace runs a test on every storage that both know.
func eachPlace(t *testing.T, test func(*testing.T, *place)) {
	t.Helper()
	for name, start := range map[string]func(*testing.T) *place{
		"directory": directoryPlace, "s3": s3Place, "gcs": gcsPlace, "azure": azurePlace, "sftp": sftpPlace, "nats": natsPlace,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if testing.Short() {
				t.Skip("needs Litestream and a storage server")
			}
			test(t, start(t))
		})
	}
}
