package sftp

import (
	"errors"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/testenv/storage"
)

func TestParseURL(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]Config{
		"sftp://host/var/ltx":           {Addr: "host", Path: "/var/ltx"},
		"sftp://me@host:2222/var/ltx":   {Addr: "host:2222", User: "me", Path: "/var/ltx"},
		"sftp://me@[::1]:22/~/ltx/prod": {Addr: "[::1]:22", User: "me", Path: "ltx/prod"},
		"sftp://me@host/x?identity=/a&identity=/b&known-hosts=/k&create=true": {
			Addr: "host", User: "me", Path: "/x", Identities: []string{"/a", "/b"}, KnownHosts: []string{"/k"}, Create: true},
		"sftp://host/x?host-key=ssh-ed25519+AAAA+b/c=":       {Addr: "host", Path: "/x", HostKey: "ssh-ed25519 AAAA+b/c="},
		"sftp://host/x?host-key=ssh-ed25519%20AAAA%2Bb/c%3D": {Addr: "host", Path: "/x", HostKey: "ssh-ed25519 AAAA+b/c="},
		"sftp://me:secret@host/x":                            {},
		"sftp://host":                                        {},
		"sftp://host/":                                       {},
		"sftp:///x":                                          {},
		"ssh://host/x":                                       {},
		"sftp://host/x?identiy=/a":                           {},
		"sftp://host/x?create=perhaps":                       {},
		"sftp://host/x?identity=%zz":                         {},
		"sftp://me:secret@host/x?identity=/a&insecure=true&create": {},
	} {
		t.Run(raw, func(t *testing.T) {
			u, err := url.Parse(raw)
			if err != nil {
				t.Fatal(err)
			}
			got, err := ParseURL(u)
			if !reflect.DeepEqual(got, want) || (err == nil) != (want.Addr != "") {
				t.Fatalf("%+v, %v: want %+v", got, err, want)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("%q tells the password", err)
			}
		})
	}
}

func TestString(t *testing.T) {
	t.Parallel()
	key := string(ssh.MarshalAuthorizedKey(newSigner(t).PublicKey()))
	for want, cfg := range map[string]Config{
		"sftp://me@host/var/ltx":   {Addr: "host", Path: "/var/ltx"},
		"sftp://me@[::1]:2/~/ltx":  {Addr: "[::1]:2", Path: "ltx"},
		"sftp://me@host:2222/~/.x": {Addr: "host:2222", Path: ".x"},
	} {
		cfg.User, cfg.HostKey, cfg.Password = "me", key, "secret"
		if got := openClosed(t, cfg).String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestFaultyConfig: each fault is named, all at once.
func TestFaultyConfig(t *testing.T) {
	dir := t.TempDir()
	locked := filepath.Join(dir, "locked")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", locked).CombinedOutput(); err != nil {
		t.Skipf("ssh-keygen: %v %s", err, out)
	}
	_, err := New(t.Context(), Config{Identities: []string{"/no/such/key", locked}, HostKey: "ssh-ed25519 nonsense"})
	for _, want := range []string{"no host", "no path", "/no/such/key", "passphrase", "nonsense"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v\ndoes not name %q", err, want)
		}
	}
	t.Setenv("HOME", dir)
	if _, err := os.Stat("/etc/ssh/ssh_known_hosts"); err == nil {
		return
	}
	if _, err := New(t.Context(), Config{Addr: "host", Path: "/x"}); err == nil || !strings.Contains(err.Error(), "known_hosts") {
		t.Errorf("%v, want a word about known_hosts", err)
	}
}

func list(t *testing.T, cfg Config) error {
	t.Helper()
	for _, err := range openClosed(t, cfg).List(t.Context(), "", "") {
		if err != nil {
			return err
		}
	}
	return nil
}

// TestHostKey: only the server that is known is spoken to.
func TestHostKey(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	dir := t.TempDir()
	other := newSigner(t).PublicKey()
	mine, _, _, _, err := ssh.ParseAuthorizedKey([]byte(s.hostKey))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, hostKey, known string
		want                 string // of the error; "": none
	}{
		{name: "given", hostKey: s.hostKey},
		{name: "known", known: knownhosts.Line([]string{s.addr}, mine)},
		{name: "known under a hash", known: knownhosts.Line([]string{knownhosts.HashHostname(knownhosts.Normalize(s.addr))}, mine)},
		{name: "another one given", hostKey: string(ssh.MarshalAuthorizedKey(other)), want: "either it changed"},
		{name: "another one known", known: knownhosts.Line([]string{s.addr}, other), want: "line 1"},
		{name: "unknown", known: knownhosts.Line([]string{"elsewhere"}, mine), want: "add it"},
		{name: "revoked", known: "@revoked * " + s.hostKey, want: "revoked"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := s.config(dir)
			cfg.HostKey = c.hostKey
			if c.known != "" {
				cfg.KnownHosts = []string{filepath.Join(t.TempDir(), "known_hosts")}
				if err := os.WriteFile(cfg.KnownHosts[0], []byte(c.known+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			err := list(t, cfg)
			switch {
			case c.want == "" && err != nil:
				t.Fatal(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, objstore.ErrTransient)):
				t.Fatalf("%v, want a permanent error with %q", err, c.want)
			}
		})
	}
}

// TestLogin: with keys of files and of the agent, and with a password.
func TestLogin(t *testing.T) {
	s := startServer(t)
	root := t.TempDir()
	t.Setenv("HOME", t.TempDir())
	cfg := s.config(root)
	cfg.Password = ""
	if err := list(t, cfg); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), envPassword) {
		t.Fatalf("%v, want fs.ErrPermission with advice", err)
	}
	t.Setenv(envPassword, "secret")
	if err := list(t, cfg); err != nil {
		t.Fatal(err)
	}
	t.Setenv(envPassword, "")

	if testing.Short() {
		t.Skip("needs sshd")
	}
	d := storage.StartSSHD(t)
	cfg = sshdConfig(d, root)
	cfg.Identities = nil
	t.Setenv("SSH_AUTH_SOCK", startAgent(t, d.Identity))
	if err := list(t, cfg); err != nil {
		t.Fatalf("with the agent: %v", err)
	}
	t.Setenv("SSH_AUTH_SOCK", filepath.Join(root, "no", "agent"))
	home := os.Getenv("HOME")
	key, err := os.ReadFile(d.Identity)
	if err := errors.Join(err, os.Mkdir(filepath.Join(home, ".ssh"), 0o700), os.WriteFile(filepath.Join(home, ".ssh", "id_ed25519"), key, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := list(t, cfg); err != nil {
		t.Fatalf("with the key at home: %v", err)
	}
	cfg.Identities = []string{"~/.ssh/id_ed25519"}
	if err := list(t, cfg); err != nil {
		t.Fatalf("with a named key: %v", err)
	}
}

// startAgent runs an agent that holds a key.
func startAgent(t *testing.T, identity string) (socket string) {
	t.Helper()
	b, err := os.ReadFile(identity)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.ParseRawPrivateKey(b)
	if err != nil {
		t.Fatal(err)
	}
	ring := agent.NewKeyring()
	if err := ring.Add(agent.AddedKey{PrivateKey: key}); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "agent") // short: the name of a socket has 100 bytes
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = agent.ServeAgent(ring, c) // io.EOF when the client has what it wants
			_ = c.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
		_ = os.RemoveAll(dir)
	})
	return socket
}

// TestNoServer: what may come up is temporary, what does not exist is not.
func TestNoServer(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	cfg := Config{Addr: addr, User: "me", Path: "/x", Password: "x", HostKey: string(ssh.MarshalAuthorizedKey(newSigner(t).PublicKey()))}
	if err := list(t, cfg); !errors.Is(err, objstore.ErrTransient) {
		t.Errorf("refused: %v, want objstore.ErrTransient", err)
	}
	cfg.Addr = "no-such-host.invalid"
	if err := list(t, cfg); err == nil || !strings.Contains(err.Error(), "no-such-host.invalid:22") || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such host: %v", err)
	}
}
