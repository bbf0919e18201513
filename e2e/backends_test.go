package e2e

import (
	"context"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/ltxstream/ltxstream/compactor"
	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/objstore/azure"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/objstore/open"
	"github.com/ltxstream/ltxstream/objstore/s3"
	"github.com/ltxstream/ltxstream/restore"
	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
	"github.com/ltxstream/ltxstream/testenv/storage"
)

// byURL opens an archive as the commands do, until the end of the test.
func byURL(t *testing.T, js jetstream.JetStream, url string) *levels.Archive {
	t.Helper()
	a, err := open.Archive(t.Context(), url, open.Options{
		Write: true, NATS: func(context.Context) (jetstream.JetStream, error) { return js, nil },
		Retry: objstore.RetryConfig{Logger: logger(t, "store")},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Store().Close() })
	return a
}

// byStore does the same with a store whose credentials would have to come from
// the environment, which parallel tests share.
func byStore[S objstore.Store](t *testing.T, layout levels.Layout) func(S, error) *levels.Archive {
	return func(s S, err error) *levels.Archive {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return levels.New(objstore.Retry(s, objstore.RetryConfig{Logger: logger(t, "store")}), layout)
	}
}

// transport is one whose connections end with the test.
func transport(t *testing.T) http.RoundTripper {
	rt := http.DefaultTransport.(*http.Transport).Clone()
	t.Cleanup(rt.CloseIdleConnections)
	return rt
}

func azureArchive(t *testing.T) *levels.Archive {
	server := storage.Azurite(t)
	cred, err := azblob.NewSharedKeyCredential(server.Account, server.Key)
	if err != nil {
		t.Fatal(err)
	}
	rt := transport(t)
	options := &azblob.ClientOptions{}
	options.Transport = &http.Client{Transport: rt}
	client, err := azblob.NewClientWithSharedKeyCredential(server.Endpoint, cred, options)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CreateContainer(t.Context(), "archive", nil); err != nil {
		t.Fatal(err)
	}
	return byStore[*azure.Store](t, levels.Decimal)(azure.New(t.Context(), azure.Config{
		Account: server.Account, Key: server.Key, Container: "archive", Prefix: "some/where", Endpoint: server.Endpoint, Transport: rt,
	}))
}

func s3Archive(t *testing.T) *levels.Archive {
	return s3ArchiveOn(t, storage.StartVersityGW(t, "bucket"))
}

func s3ArchiveOn(t *testing.T, server *storage.VersityGW) *levels.Archive {
	return byStore[*s3.Store](t, levels.Hex)(s3.New(t.Context(), s3.Config{
		Bucket: "bucket", Prefix: "some/where", Endpoint: server.URL, Transport: transport(t),
		AWS: &aws.Config{Region: s3.DefaultRegion, Credentials: credentials.NewStaticCredentialsProvider(server.AccessKey, server.SecretKey, "")},
	}))
}

func sftpURL(t *testing.T) string {
	d := storage.StartSSHD(t)
	return "sftp://" + d.User + "@" + d.Addr + filepath.Join(t.TempDir(), "archive") + "?create=true&identity=" + d.Identity + "&known-hosts=" + d.KnownHosts
}

// onEachBackend runs a test with an empty archive on every storage there is.
func onEachBackend(t *testing.T, test func(*testing.T, jetstream.JetStream, *levels.Archive)) {
	t.Helper()
	for name, archive := range map[string]func(*testing.T, jetstream.JetStream) *levels.Archive{
		"directory": func(t *testing.T, js jetstream.JetStream) *levels.Archive {
			return byURL(t, js, "file://"+filepath.Join(t.TempDir(), "archive"))
		},
		"nats": func(t *testing.T, js jetstream.JetStream) *levels.Archive {
			return byURL(t, js, "nats://bucket/some/where")
		},
		"gcs": func(t *testing.T, js jetstream.JetStream) *levels.Archive {
			return byURL(t, js, "gs://bucket/some/where?endpoint="+storage.StartGCS(t, "bucket").URL)
		},
		"sftp":  func(t *testing.T, js jetstream.JetStream) *levels.Archive { return byURL(t, js, sftpURL(t)) },
		"azure": func(t *testing.T, _ jetstream.JetStream) *levels.Archive { return azureArchive(t) },
		"s3":    func(t *testing.T, _ jetstream.JetStream) *levels.Archive { return s3Archive(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if testing.Short() && name != "directory" && name != "nats" {
				t.Skip("needs a storage server")
			}
			js := testenv.Node(t).JetStream()
			test(t, js, archive(t, js))
		})
	}
}

// TestBackends: on every storage there is, what was published is archived, found
// again by transaction and by time, and whole.
func TestBackends(t *testing.T) {
	t.Parallel()
	onEachBackend(t, archives)
}

// archives runs a bank into an archive and back.
func archives(t *testing.T, js jetstream.JetStream, to *levels.Archive) {
	t.Helper()
	f := paths(t)
	db, teller := testenv.Bank(t, f.primary, sqlconn.WAL(), seed(t))
	p, _ := publish(t, js, appDB, f.primary)
	arch, archRole := archiving(t, js, to, p)
	copies := map[restore.Target]string{}
	for range 3 {
		transfers(t, teller, 20)
		archivedTo(t, arch, p)
		pos := syncNow(t, p)
		rows := filepath.Join(t.TempDir(), "then.db")
		if _, err := db.ExecContext(t.Context(), "VACUUM INTO ?", rows); err != nil {
			t.Fatal(err)
		}
		copies[restore.Target{TXID: pos.TXID}] = rows
		copies[restore.Target{Time: arch.Status()[0].ArchivedTime}] = rows
	}
	transfers(t, teller, 5)
	archivedTo(t, arch, p)
	archRole.mustStop(t)

	source := restore.Of(to, string(appDB))
	testenv.Compare(t, f.primary, restored(t, restore.Target{}, source))
	for target, rows := range copies {
		testenv.CompareRows(t, rows, restored(t, target, source))
	}
	verified(t, to)
}

// verified reads every file of an archive whole.
func verified(t *testing.T, a *levels.Archive) {
	t.Helper()
	for name, err := range a.Databases(t.Context()) {
		if err != nil || name != string(appDB) {
			t.Errorf("database %q: %v", name, err)
		}
	}
	catalog, err := restore.Read(t.Context(), restore.Of(a, string(appDB)))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(catalog.Stretches()); n != 1 {
		t.Errorf("%d stretches, want one", n)
	}
	for _, f := range catalog.Files {
		if _, err := compactor.Inspect(t.Context(), a, string(appDB), f.File); err != nil {
			t.Error(err)
		}
		stamped, err := a.Stamped(t.Context(), string(appDB), f.File)
		byHeader, errHeader := a.StampedByHeader(t.Context(), string(appDB), f.File)
		if err != nil || errHeader != nil || !stamped.Timestamp.Equal(byHeader.Timestamp) {
			t.Errorf("%s: %s by its metadata, %s by its header: %v, %v", f.File, stamped.Timestamp, byHeader.Timestamp, err, errHeader)
		}
	}
}
