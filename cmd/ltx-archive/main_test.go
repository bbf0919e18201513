package main

import (
	"context"
	"flag"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/internal/daemon"
	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/storage"
)

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) {
	for _, name := range []string{"NATS_URL", "NATS_CONTEXT", "NATS_CREDS", "NATS_USER", "NATS_PASSWORD", "NATS_TOKEN", "LTX_CONFIG", "STORAGE_EMULATOR_HOST", "AZURE_STORAGE_ACCOUNT"} {
		os.Unsetenv(name)
	}
	for name, value := range map[string]string{ // of all storage servers that tests start
		"AWS_ACCESS_KEY_ID": storage.VersityAccessKey, "AWS_SECRET_ACCESS_KEY": storage.VersitySecretKey, "AZURE_STORAGE_KEY": storage.AzureKey(),
	} {
		os.Setenv(name, value)
	}
	testenv.Main(m)
}

var quiet = slog.New(slog.DiscardHandler)

// outcome is what a command that ended left.
type outcome struct {
	code           int
	stdout, stderr string
}

// execute runs the command as main does, and returns what it printed.
func execute(t testing.TB, args ...string) outcome {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	defer time.AfterFunc(60*time.Second, cancel).Stop() // ends what should have ended by itself; no deadline, main has none
	return executeUnder(ctx, args...)
}

func executeUnder(ctx context.Context, args ...string) (o outcome) {
	var out, errs strings.Builder
	o.code = run(ctx, args, strings.NewReader(""), &out, &errs)
	o.stdout, o.stderr = out.String(), errs.String()
	return o
}

// want fails the test unless the command ended with a code and said all of texts.
func (o outcome) want(t testing.TB, code int, texts ...string) outcome {
	t.Helper()
	all := o.stdout + o.stderr
	if o.code != code {
		t.Fatalf("code %d, want %d; it said:\n%s", o.code, code, all)
	}
	for _, text := range texts {
		if !strings.Contains(all, text) {
			t.Errorf("it does not say %q:\n%s", text, all)
		}
	}
	return o
}

func file(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestHelp(t *testing.T) {
	t.Setenv("COLUMNS", "100")
	for _, verb := range []string{"", "run", "restore", "ls", "verify", "prune"} {
		name, args := "help.txt", []string{"--help"}
		if verb != "" {
			name, args = "help-"+verb+".txt", []string{verb, "--help"}
		}
		got := execute(t, args...)
		golden := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(golden, []byte(got.stdout), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if got.code != 0 || got.stdout != string(want) {
			t.Errorf("%s: code %d, output differs from %s (-update writes it):\n%s", verb, got.code, golden, got.stdout)
		}
	}
}

func TestVersion(t *testing.T) {
	if got := execute(t, "--version"); got.code != 0 || !strings.HasPrefix(got.stdout, "ltx-archive "+daemon.Version) {
		t.Errorf("%+v", got)
	}
}

// TestUsage: what is wrong on the command line is said before anything is asked
// of a server, with exit code 2.
func TestUsage(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "out.db")
	tests := map[string]struct {
		args []string
		text string
	}{
		"unknown flag":                   {[]string{"--nope"}, "--nope"},
		"no archive":                     {nil, "--to URL"},
		"bad name":                       {[]string{"--to", dir, "a.b"}, `"a.b"`},
		"bad name of a place":            {[]string{"--to", "a.b=" + dir}, `"a.b"`},
		"place of an unnamed one":        {[]string{"--to", "log=" + dir, "app"}, "not among"},
		"place without a URL":            {[]string{"--to", "log="}, "no URL"},
		"two bad names":                  {[]string{"--to", dir, "a.b", "c d"}, `"c d"`},
		"bad duration":                   {[]string{"--to", dir, "--flush=soon"}, "flush"},
		"bad window":                     {[]string{"--to", dir, "--windows=5m,soon"}, "windows"},
		"bad level":                      {[]string{"--to", dir, "--log-level=loud"}, "loud"},
		"unknown key":                    {[]string{"--config", file(t, "c.yaml", "dbs: [x]")}, "dbs"},
		"restore flag in file":           {[]string{"--config", file(t, "c.yaml", "force: true")}, "force"},
		"restore of nothing":             {[]string{"restore"}, "URL"},
		"restore without output":         {[]string{"restore", dir, "app"}, "OUTPUT"},
		"restore of a bad name":          {[]string{"restore", dir, "a b", out}, `"a b"`},
		"run of a URL's own folder":      {[]string{"--to", dir, "."}, `"."`},
		"restore by two targets":         {[]string{"restore", dir, "app", out, "--txid=0000000000000001", "--timestamp=2026-01-01"}, "together"},
		"restore of TXID zero":           {[]string{"restore", dir, "app", out, "--txid=0000000000000000"}, "not zero"},
		"restore of a short TXID":        {[]string{"restore", dir, "app", out, "--txid=12"}, "16 hex digits"},
		"restore of a bad generation":    {[]string{"restore", dir, "app", out, "--generation=12"}, "16 hex digits"},
		"restore of a bad index":         {[]string{"restore", dir, "app", out, "--index=x"}, "8 hex digits"},
		"restore by index and time":      {[]string{"restore", dir, "app", out, "--index=1", "--timestamp=2026-01-01"}, "together"},
		"restore by generation and TXID": {[]string{"restore", dir, "app", out, "--generation=0123456789abcdef", "--txid=0000000000000001"}, "together"},
		"restore of a vague time":        {[]string{"restore", dir, "app", out, "--timestamp=yesterday"}, "10 minutes ago"},
		"restore with a bad check":       {[]string{"restore", dir, "app", out, "--integrity-check=some"}, "some"},
		"restore into no directory":      {[]string{"restore", dir, "app", filepath.Join(dir, "no", "x.db")}, "directory does not exist"},
		"restore to a directory":         {[]string{"restore", dir, "app", dir, "--force"}, "not a regular file"},
		"restore over something":         {[]string{"restore", dir, "app", file(t, "there.db", "x")}, "--force"},
		"restore from a bad scheme":      {[]string{"restore", "ftp://host/x", "app", out}, `"ftp"`},
		"ls of a bad URL":                {[]string{"ls", "file://%zz"}, "archive"},
		"ls of a host":                   {[]string{"ls", "file://backups/x"}, "third slash"},
		"ls of a bad parameter":          {[]string{"ls", "file:///x?crate=true"}, `"crate"`},
		"ls of a bad bucket":             {[]string{"ls", "gs://A_B/x"}, "bucket"},
		"ls of gs parameter":             {[]string{"ls", "gs://bucket/x?region=eu"}, `"region"`},
		"ls of no container":             {[]string{"ls", "abs://account@/x"}, "container"},
		"ls of sftp without path":        {[]string{"ls", "sftp://u@host"}, "path"},
		"ls of a bad name":               {[]string{"ls", dir, "a/b"}, `"a/b"`},
		"restore of no key":              {[]string{"restore", dir, "a/b", out, "--no-stream"}, `"a/b"`},
		"ls of an empty URL":             {[]string{"ls", ""}, "want"},
		"verify of a bad share":          {[]string{"verify", dir, "app", "--read-data=much"}, "2/7"},
		"verify of part zero":            {[]string{"verify", dir, "app", "--read-data=0/7"}, "2/7"},
		"verify of a bad name":           {[]string{"verify", dir, "../app"}, `"../app"`},
		"prune of a bad name":            {[]string{"prune", dir, "a b"}, `"a b"`},
		"prune of a bad policy":          {[]string{"prune", dir, "app", "--keep-daily=some"}, "keep-daily"},
		"prune of a negative window":     {[]string{"prune", dir, "app", "--keep-window=-1h"}, "negative"},
		"prune of a negative grace":      {[]string{"prune", dir, "app", "--keep-grace=-1h"}, "negative"},
		"prune of negative days":         {[]string{"prune", dir, "app", "--keep-daily=-1"}, "negative"},
		"run with negative retention": {[]string{"--to", dir, "--keep-window=-1h", "-s", "127.0.0.1:1", "--connect-wait=0s"},
			"negative"},
		"run to a bad scheme":        {[]string{"--to", "ftp://host/x", "-s", "127.0.0.1:1", "--connect-wait=0s"}, `"ftp"`},
		"run to a bad parameter":     {[]string{"--to", "file:///x?crate=true", "-s", "127.0.0.1:1", "--connect-wait=0s"}, `"crate"`},
		"run with a window too many": {[]string{"--to", dir, "--windows=1m,2m,3m,4m,5m,6m,7m,8m", "-s", "127.0.0.1:1", "--connect-wait=0s"}, "windows"},
		"run with a zero window":     {[]string{"--to", dir, "--windows=0s", "-s", "127.0.0.1:1", "--connect-wait=0s"}, "windows"},
		"run with a zero snapshot":   {[]string{"--to", dir, "--snapshot-interval=0s", "-s", "127.0.0.1:1", "--connect-wait=0s"}, "snapshot"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := execute(t, tt.args...)
			if got.code != 2 || !strings.Contains(got.stderr, tt.text) || got.stdout != "" {
				t.Errorf("%+v; want code 2 and %q", got, tt.text)
			}
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// TestBadPlaces: an archive or a server that is not there.
func TestBadPlaces(t *testing.T) {
	dir := t.TempDir()
	absent, out, free := filepath.Join(dir, "absent"), filepath.Join(dir, "out.db"), freePort(t)
	empty := t.TempDir()
	config := file(t, "c.yaml", "databases: [app]\nto: ["+empty+"]\nserver: "+free+"\nconnect-wait: 0s\n")
	tests := map[string]struct {
		args []string
		code int
		text string
	}{
		"ls of a missing directory":      {[]string{"ls", absent}, 1, "mount it"},
		"verify of a missing directory":  {[]string{"verify", absent, "app"}, 1, "mount it"},
		"prune of a missing directory":   {[]string{"prune", absent, "app"}, 1, "mount it"},
		"restore of a missing directory": {[]string{"restore", absent, "app", out, "--no-stream"}, 1, "mount it"},
		"ls of a missing database":       {[]string{"ls", empty, "app"}, 10, `"app"`},
		"verify of a missing database":   {[]string{"verify", empty, "app"}, 10, `"app"`},
		"prune of a missing database":    {[]string{"prune", empty, "app"}, 10, `"app"`},
		"restore of a missing database":  {[]string{"restore", empty, "app", out, "--no-stream"}, 10, `"app"`},
		"run without a server":           {[]string{"--to", empty, "-s", free, "--connect-wait=0s"}, 1, "nothing answers"},
		"run by configuration":           {[]string{"--config", config}, 1, "nothing answers"},
		"run by lists":                   {[]string{"--config", file(t, "c.yaml", "to:\n  - \"app="+empty+"\"\nwindows:\n  - \"10m\"\n  - \"2h\"\nkeep-window: \"72h\"\nserver: "+free+"\nconnect-wait: 0s\n")}, 1, "nothing answers"},
		"run by a list with a fault":     {[]string{"--config", file(t, "c.yaml", "to: ["+empty+"]\nwindows: [10m, soon]\n")}, 2, "windows"},
		"nats archive without a server":  {[]string{"ls", "nats://bucket/x", "-s", free, "--connect-wait=0s"}, 1, "nothing answers"},
		"restore without a server":       {[]string{"restore", empty, "app", out, "-s", free, "--connect-wait=0s"}, 1, "--no-stream"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			execute(t, tt.args...).want(t, tt.code, tt.text)
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
	execute(t, "ls", empty).want(t, 0)
	if got := execute(t, "ls", empty, "--json").want(t, 0); strings.TrimSpace(got.stdout) != "[]" {
		t.Errorf("an empty archive: %q", got.stdout)
	}
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
