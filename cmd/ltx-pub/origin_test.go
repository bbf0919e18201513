package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/compactor"
	"github.com/ltxstream/ltxstream/internal/daemon"
	"github.com/ltxstream/ltxstream/objstore/dir"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/publisher"
	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/litestream"
)

// TestParseOrigins: which folder is whose.
func TestParseOrigins(t *testing.T) {
	one := []daemon.Target{{DB: "app"}}
	two := []daemon.Target{{DB: "app"}, {DB: "log"}}
	for name, tt := range map[string]struct {
		values  []string
		targets []daemon.Target
		want    origins
	}{
		"none":                 {nil, one, origins{}},
		"of the only one":      {[]string{"/b"}, one, origins{"app": {"/b", []string{"app", "."}}}},
		"of all":               {[]string{"s3://b?x=y"}, two, origins{"app": {"s3://b?x=y", []string{"app"}}, "log": {"s3://b?x=y", []string{"log"}}}},
		"of one":               {[]string{"log=/b/old.db"}, two, origins{"log": {"/b/old.db", []string{"."}}}},
		"of one, and the rest": {[]string{"log=/b/old.db", "/b"}, two, origins{"log": {"/b/old.db", []string{"."}}, "app": {"/b", []string{"app"}}}},
		"a path with =":        {[]string{"/a=b"}, one, origins{"app": {"/a=b", []string{"app", "."}}}},
	} {
		got, err := parseOrigins(tt.values, tt.targets)
		if same := fmt.Sprint(got) == fmt.Sprint(tt.want); err != nil || !same {
			t.Errorf("%s: %v, %v; want %v", name, got, err, tt.want)
		}
	}
}

// replicated is a database that Litestream replicates into a directory.
func replicated(t *testing.T) (db, archive string, stop func() ltx.TXID) {
	t.Helper()
	db, archive = database(t, "app.db"), filepath.Join(t.TempDir(), "app")
	store, err := dir.New(t.Context(), dir.Config{Path: archive, Create: true})
	if err != nil {
		t.Fatal(err)
	}
	a := levels.New(store, levels.Decimal)
	end := func() ltx.TXID {
		inv, err := compactor.ReadInventory(t.Context(), a, levels.Root)
		if err != nil {
			t.Fatal(err)
		}
		return inv.End().Max
	}
	p := litestream.Current.Start(t, nil, "replicate", "-config", litestream.Config(t, fmt.Sprintf("dbs: [{path: %s, replica: {path: %s, sync-interval: 50ms}}]", db, archive)))
	testenv.Until(t, time.Minute, "files of Litestream's", func() error {
		if end() == 0 {
			return errors.New("none")
		}
		return nil
	})
	return db, archive, func() ltx.TXID {
		litestream.Stop(t, p)
		return end()
	}
}

// TestFromLitestream: refused while Litestream runs and where there is nothing of
// its, then continued, and left alone afterwards; once somebody else has gone on in
// the archive, refused again.
func TestFromLitestream(t *testing.T) {
	db, archive, stop := replicated(t)
	url := serve(t, nil)
	from := func(place string, flags ...string) []string {
		return append([]string{db, "-s", url, "--from-litestream", place}, flags...)
	}
	refused := func(code int, text string, args []string) {
		t.Helper()
		if got, _, errs := execute(t, args...); got != code || !strings.Contains(errs, text) || !strings.Contains(errs, "hint: ") {
			t.Errorf("code %d, %s; want code %d and %q", got, errs, code, text)
		}
	}
	refused(11, "still runs", from(archive))
	end := stop()
	refused(10, "no LTX files", from(t.TempDir()))
	refused(10, "no LTX files", from("app="+filepath.Dir(archive)))
	refused(1, "absent", from(filepath.Join(t.TempDir(), "absent")))
	refused(2, "ftp", from("ftp://host/x"))

	for n, place := range []string{filepath.Dir(archive), archive, "app=" + archive} { // the same by all its names
		p := background(t, from(place)...)
		write(t, db)
		var now publisher.Status
		testenv.Until(t, time.Minute, "everything published", func() error {
			if code, out, errs := execute(t, "sync", "app", "-s", url); code != 0 {
				return fmt.Errorf("%s%s; %s", out, errs, p.text())
			}
			_, out, _ := execute(t, "status", "--json", "-s", url)
			var all []publisher.Status
			if err := json.Unmarshal([]byte(out), &all); err != nil || len(all) != 1 {
				return fmt.Errorf("%s: %w", out, err)
			}
			now = all[0]
			return nil
		})
		if now.Acked <= end+ltx.TXID(n) || now.Acked > end+10 {
			t.Errorf("behind TXID %s: at %s", end, now.Acked)
		}
		if code := p.stop(); code != 0 {
			t.Fatalf("code %d: %s", code, p.text())
		}
	}

	// Litestream went on for long.
	if err := os.WriteFile(filepath.Join(archive, "ltx", "0", ltx.FormatFilename(5000, 5000)), theirs(t, 5000), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(22, "two histories", from(archive))
}

// theirs is a file as Litestream writes them, an hour old.
func theirs(t *testing.T, txid ltx.TXID) []byte {
	t.Helper()
	var buf bytes.Buffer
	enc, err := ltx.NewEncoder(&buf)
	if err == nil {
		err = enc.EncodeHeader(ltx.Header{Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum, PageSize: 512, Commit: 1, MinTXID: txid, MaxTXID: txid, Timestamp: time.Now().Add(-time.Hour).UnixMilli()})
	}
	if err == nil {
		err = enc.EncodePage(ltx.PageHeader{Pgno: 1}, make([]byte, 512))
	}
	if err == nil {
		err = enc.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}
