package config

import (
	"errors"
	"flag"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/ltxstream/ltxstream/internal/daemon"
	"github.com/ltxstream/ltxstream/objstore/azure"
	"github.com/ltxstream/ltxstream/objstore/gcs"
	natsobj "github.com/ltxstream/ltxstream/objstore/nats"
	"github.com/ltxstream/ltxstream/objstore/s3"
	"github.com/ltxstream/ltxstream/objstore/sftp"
)

var update = flag.Bool("update", false, "write the golden files")

// TestImport: what becomes of each sample, in both files and in notes, or what is
// wrong with it. No secret of any sample is in it: they all begin with "HIDDEN".
func TestImport(t *testing.T) {
	t.Parallel()
	samples, err := filepath.Glob("testdata/*.yml")
	if err != nil || len(samples) < 10 {
		t.Fatal(samples, err)
	}
	for _, sample := range samples {
		t.Run(filepath.Base(sample), func(t *testing.T) {
			t.Parallel()
			got := imported(t, sample)
			golden := strings.TrimSuffix(sample, ".yml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil || got != string(want) {
				t.Errorf("it differs from %s (-update writes it), %v:\n%s", golden, err, got)
			}
			if strings.Contains(got, "HIDDEN") {
				t.Errorf("a secret is in it:\n%s", got)
			}
		})
	}
}

func imported(t *testing.T, sample string) string {
	t.Helper()
	f, err := os.Open(sample)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	i, err := Import(f, filepath.Base(sample))
	if err != nil {
		return "== error\n" + err.Error() + "\n"
	}
	text := "== ltx-pub.yml\n" + i.Publisher + "== ltx-archive.yml\n" + i.Archiver + "== notes\n"
	for _, n := range i.Notes {
		text += n.String() + "\n"
	}
	return text
}

// TestOursUnderstand: what comes out names databases and places that our commands
// take.
func TestOursUnderstand(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"one", "several", "apart", "s3", "others", "nats", "old", "names", "everything", "directory"} {
		f, err := os.Open(filepath.Join("testdata", name+".yml"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		i, err := Import(f, name)
		if err != nil {
			t.Fatal(err)
		}
		var pubs struct {
			Databases []string
			From      []string `yaml:"from-litestream"`
		}
		var archives struct{ To []string }
		if err := errors.Join(yaml.Unmarshal([]byte(i.Publisher), &pubs), yaml.Unmarshal([]byte(i.Archiver), &archives)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := daemon.ParseTargets(pubs.Databases); err != nil || len(pubs.Databases) == 0 {
			t.Errorf("%s: %v", name, err)
		}
		for _, list := range [][]string{pubs.From, archives.To} {
			places, err := daemon.ParsePlaces("x", list)
			if err != nil || len(places) == 0 {
				t.Errorf("%s: %v", name, err)
			}
			for _, p := range places {
				if err := understood(p.URL); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
	}
}

func understood(raw string) error {
	u, err := url.Parse(raw)
	if err != nil {
		return err
	}
	switch u.Scheme {
	case "":
	case "s3":
		_, err = s3.ParseURL(u)
	case "gs":
		_, err = gcs.ParseURL(u)
	case "abs":
		_, err = azure.ParseURL(u)
	case "sftp":
		_, err = sftp.ParseURL(u)
	case "nats":
		_, err = natsobj.ParseURL(u)
	default:
		err = errors.New(raw)
	}
	return err
}

// TestEveryKeyIsNamed: whatever key is added anywhere, it is taken over or named.
func TestEveryKeyIsNamed(t *testing.T) {
	t.Parallel()
	for _, where := range []string{"%s\ndbs: [{path: a.db, replica: {path: /b/a}}]", "dbs: [{path: a.db, %s, replica: {path: /b/a}}]", "dbs: [{path: a.db, replica: {path: /b/a, %s}}]"} {
		i, err := Import(strings.NewReader(strings.Replace(where, "%s", "new-key: 7", 1)), "x")
		if err != nil || len(i.Notes) != 1 || !strings.HasSuffix(i.Notes[0].Key, "new-key") {
			t.Errorf("%s: %+v, %v", where, i, err)
		}
	}
}

// FuzzImport: anything is an error or two files.
func FuzzImport(f *testing.F) {
	samples, _ := filepath.Glob("testdata/*.yml")
	for _, sample := range samples {
		b, err := os.ReadFile(sample)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "dir") {
			return // it would list some
		}
		if i, err := Import(strings.NewReader(text), "x"); err == nil && (i.Publisher == "" || i.Archiver == "") {
			t.Error("no error, and nothing came out")
		}
	})
}
