package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/superfly/ltx"
	"go.uber.org/goleak"

	"github.com/ltxstream/ltxstream/embedded"
	"github.com/ltxstream/ltxstream/internal/control"
	"github.com/ltxstream/ltxstream/internal/daemon"
	"github.com/ltxstream/ltxstream/testenv"
)

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		os.Exit(childWrites(path))
	}
	for _, name := range []string{"NATS_URL", "NATS_CONTEXT", "NATS_CREDS", "NATS_USER", "NATS_PASSWORD", "NATS_TOKEN", "LTX_CONFIG"} {
		os.Unsetenv(name)
	}
	goleak.VerifyTestMain(m)
}

var quiet = slog.New(slog.DiscardHandler)

// execute runs the command as main does, and returns what it printed.
func execute(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	defer time.AfterFunc(time.Minute, cancel).Stop() // ends what should have ended by itself; no deadline, main has none
	var out, errs strings.Builder
	code = run(ctx, args, strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

// serve runs a nats-server with JetStream unless change turns it off.
func serve(t *testing.T, change func(*server.Options)) string {
	t.Helper()
	opts := &server.Options{Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir()}
	if change != nil {
		change(opts)
	}
	s, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(time.Minute) {
		t.Fatal("server not ready")
	}
	return s.ClientURL()
}

func user(perms *server.Permissions) func(*server.Options) {
	return func(o *server.Options) {
		o.Users = []*server.User{{Username: "u", Password: "right", Permissions: perms}}
	}
}

func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestHelp(t *testing.T) {
	t.Setenv("COLUMNS", "100")
	for _, verb := range []string{"", "run", "status", "sync", "config import"} {
		name, args := "help.txt", []string{"--help"}
		if verb != "" {
			name, args = "help-"+strings.ReplaceAll(verb, " ", "-")+".txt", append(strings.Fields(verb), "--help")
		}
		code, out, _ := execute(t, args...)
		golden := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(golden, []byte(out), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if code != 0 || out != string(want) {
			t.Errorf("%s: code %d, output differs from %s (-update writes it):\n%s", verb, code, golden, out)
		}
	}
}

func TestVersion(t *testing.T) {
	if code, out, _ := execute(t, "--version"); code != 0 || !strings.HasPrefix(out, "ltx-pub "+daemon.Version) {
		t.Errorf("code %d, output %q", code, out)
	}
}

func TestUsage(t *testing.T) {
	db := file(t, "app.db", "")
	dir := t.TempDir()
	tests := map[string]struct {
		args []string
		code int
		text string
	}{
		"unknown flag":        {[]string{"--nope"}, 2, "--nope"},
		"no database":         {nil, 2, "[NAME=]PATH"},
		"bad name":            {[]string{"a.b=" + db}, 2, `"a.b"`},
		"name from bad file":  {[]string{filepath.Join(dir, "my app.db")}, 2, "NAME="},
		"name twice":          {[]string{db, "app=" + filepath.Join(dir, "x.db")}, 2, `"app"`},
		"missing file":        {[]string{filepath.Join(dir, "absent.db")}, 10, "absent.db"},
		"directory":           {[]string{"app=" + dir}, 10, "not a regular file"},
		"bad duration":        {[]string{db, "--retain=soon"}, 2, "retain"},
		"bad size":            {[]string{db, "--spool-limit=much"}, 2, "much"},
		"bad replicas":        {[]string{db, "--replicas=2"}, 2, "replicas"},
		"bad level":           {[]string{db, "--log-level=loud"}, 2, "loud"},
		"bad listen":          {[]string{db, "--embedded-listen=nowhere"}, 2, "nowhere"},
		"origin, bad name":    {[]string{db, "--from-litestream=a.b=" + dir}, 2, `"a.b"`},
		"origin of others":    {[]string{db, "--from-litestream=other=" + dir}, 2, "other="},
		"origin twice":        {[]string{db, "--from-litestream=app=" + dir, "--from-litestream=app=" + dir}, 2, "twice"},
		"two origins":         {[]string{db, "--from-litestream", dir, "--from-litestream", dir}, 2, "for all"},
		"origin, no URL":      {[]string{db, "--from-litestream=app="}, 2, "no URL"},
		"two servers":         {[]string{db, "--embedded", dir, "--server", "127.0.0.1:1"}, 2, "excludes"},
		"reseed many":         {[]string{db, "b=" + file(t, "b.db", ""), "--force-reseed"}, 2, "--force-reseed"},
		"reseed in config":    {[]string{"--config", file(t, "c.yaml", "force-reseed: true")}, 2, "force-reseed"},
		"unknown config key":  {[]string{"--config", file(t, "c.yaml", "datbases: [x]")}, 2, "datbases"},
		"missing config":      {[]string{"--config", filepath.Join(dir, "absent.yaml")}, 2, "absent.yaml"},
		"sync without name":   {[]string{"sync"}, 2, "name"},
		"sync of a bad name":  {[]string{"sync", "a.b"}, 2, `"a.b"`},
		"missing credentials": {[]string{db, "-s", "127.0.0.1:1", "--creds", filepath.Join(dir, "absent.creds")}, 2, "absent.creds"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			code, out, errs := execute(t, tt.args...)
			if code != tt.code || !strings.Contains(errs, tt.text) || out != "" {
				t.Errorf("code %d, stdout %q, stderr %q; want code %d and %q", code, out, errs, tt.code, tt.text)
			}
		})
	}
}

// TestConfigImport: both files are printed, or written, and understood.
func TestConfigImport(t *testing.T) {
	theirs := file(t, "litestream.yml", "dbs:\n- path: /nowhere/app.db\n  new: 1\n  replica: {url: s3://backups/app, secret-access-key: HIDDEN}\n")
	code, out, errs := execute(t, "config", "import", theirs)
	if code != 0 || !strings.Contains(out, "\n---\n") || !strings.Contains(errs, "dbs[0].new: not known") || !strings.Contains(errs, "AWS_SECRET_ACCESS_KEY") || strings.Contains(out+errs, "HIDDEN") {
		t.Errorf("code %d, stdout %s, stderr %s", code, out, errs)
	}
	dir := t.TempDir()
	if code, out, errs := execute(t, "config", "import", theirs, "--out", dir); code != 0 || out != "" {
		t.Fatalf("code %d, stdout %s, stderr %s", code, out, errs)
	}
	if code, _, errs := execute(t, "run", "--config", filepath.Join(dir, "ltx-pub.yml")); code != 10 || !strings.Contains(errs, "/nowhere/app.db") {
		t.Errorf("with what was written: code %d, %s", code, errs)
	}
	for name, tt := range map[string]struct {
		code int
		args []string
	}{
		"again":          {2, []string{theirs, "--out", dir}},
		"no such file":   {10, []string{filepath.Join(dir, "absent.yml")}},
		"not a mapping":  {2, []string{file(t, "x.yml", "- a")}},
		"nothing in it":  {2, []string{file(t, "x.yml", "addr: x")}},
		"no such folder": {1, []string{theirs, "--out", filepath.Join(dir, "absent")}},
	} {
		if code, out, errs := execute(t, append([]string{"config", "import"}, tt.args...)...); code != tt.code || out != "" || errs == "" {
			t.Errorf("%s: code %d, stdout %q, stderr %q; want code %d", name, code, out, errs, tt.code)
		}
	}
}

func TestConfigFileNamesDatabases(t *testing.T) {
	t.Setenv("LTX_TEST_DIR", t.TempDir())
	config := file(t, "c.yaml", "databases:\n  - app=${LTX_TEST_DIR}/absent.db\n")
	if code, _, errs := execute(t, "--config", config); code != 10 || !strings.Contains(errs, os.Getenv("LTX_TEST_DIR")) {
		t.Errorf("code %d, %s", code, errs)
	}
}

func TestBadNATS(t *testing.T) {
	db := file(t, "app.db", "")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free := l.Addr().String()
	l.Close()
	noSubjects := &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"ltxstream.>"}}}

	tests := map[string]struct {
		server func(*server.Options)
		args   []string
		code   int
		text   string
	}{
		"absent":                  {args: []string{db, "-s", free}, code: 1, text: "nothing answers"},
		"absent for status":       {args: []string{"status", "-s", free}, code: 1, text: "nothing answers"},
		"no jetstream":            {server: func(o *server.Options) { o.JetStream = false }, args: []string{db}, code: 1, text: "JetStream is not enabled"},
		"wrong password":          {server: user(nil), args: []string{db, "--user=u", "--password=wrong"}, code: 1, text: "refuses these credentials"},
		"no permission to ask":    {server: user(noSubjects), args: []string{"status", "--user=u", "--password=right", "--timeout=100ms"}, code: 1, text: "lacks a permission"},
		"nobody to ask":           {server: user(nil), args: []string{"status", "--user=u", "--password=right"}, code: 10, text: "no ltx-pub answers"},
		"nobody serves it":        {server: user(nil), args: []string{"sync", "app", "--user=u", "--password=right"}, code: 10, text: `no ltx-pub serves database "app"`},
		"nobody serves it either": {server: user(nil), args: []string{"status", "app", "--user=u", "--password=right"}, code: 10, text: `"app"`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			args := append(tt.args, "--connect-wait=0s")
			if tt.server != nil {
				args = append(args, "-s", serve(t, tt.server))
			}
			code, out, errs := execute(t, args...)
			if code != tt.code || !strings.Contains(errs, tt.text) || !strings.Contains(errs, "hint: ") || out != "" {
				t.Errorf("code %d, stdout %q, stderr %q; want code %d, %q and a hint", code, out, errs, tt.code, tt.text)
			}
		})
	}
}

func TestEmbeddedRefusals(t *testing.T) {
	db := file(t, "app.db", "")
	dir := t.TempDir()
	s, err := embedded.New(embedded.Config{Dir: dir, Listen: "127.0.0.1:0", Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer s.Shutdown()
	used := strings.TrimPrefix(s.ClientURL(), "nats://")

	if code, _, errs := execute(t, db, "--embedded", dir, "--embedded-listen=none"); code != 11 || !strings.Contains(errs, dir) {
		t.Errorf("directory in use: code %d, %s", code, errs)
	}
	if code, _, errs := execute(t, db, "--embedded-listen", used); code != 1 || !strings.Contains(errs, used) || !strings.Contains(errs, "--server") {
		t.Errorf("address in use: code %d, %s", code, errs)
	}
}

// answering serves fake publications.
func answering(t *testing.T, pubs ...control.Publication) string {
	t.Helper()
	url := serve(t, nil)
	nc, err := nats.Connect(url, nats.Timeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	svc, err := control.ServePublications(t.Context(), nc, control.Config{Version: daemon.Version, Logger: quiet}, pubs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = svc.Close() })
	return url
}

func TestSyncCommand(t *testing.T) {
	fenced := daemon.Exit(daemon.ExitFenced, errors.New("fenced by host b"), "")
	url := answering(t,
		control.Publication{DB: "app", Status: func() any { return nil }, Sync: func(context.Context) (ltx.Pos, error) { return ltx.NewPos(0x2a, ltx.ChecksumFlag), nil }},
		control.Publication{DB: "old", Status: func() any { return nil }, Sync: func(context.Context) (ltx.Pos, error) { return ltx.Pos{}, fenced }},
		control.Publication{DB: "slow", Status: func() any { return nil }, Sync: func(ctx context.Context) (ltx.Pos, error) { <-ctx.Done(); return ltx.Pos{}, ctx.Err() }},
	)
	if code, out, errs := execute(t, "sync", "app", "-s", url); code != 0 || out != "000000000000002a\n" {
		t.Errorf("code %d, stdout %q, stderr %q", code, out, errs)
	}
	code, out, _ := execute(t, "sync", "app", "-s", url, "--json")
	var reached control.Reached
	if err := json.Unmarshal([]byte(out), &reached); code != 0 || err != nil || reached.TXID != 0x2a || reached.DB != "app" {
		t.Errorf("code %d, stdout %q, %v", code, out, err)
	}
	if code, _, errs := execute(t, "sync", "old", "-s", url); code != 11 || !strings.Contains(errs, "host b") {
		t.Errorf("fenced: code %d, %s", code, errs)
	}
	testenv.Again(t, func() error {
		if code, out, errs := execute(t, "sync", "slow", "-s", url, "--timeout=100ms"); code != 20 {
			return fmt.Errorf("slow: code %d, stdout %q, stderr %q", code, out, errs)
		}
		return nil
	})
}
