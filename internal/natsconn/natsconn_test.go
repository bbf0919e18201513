package natsconn_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/ltxstream/ltxstream/internal/natsconn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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

// users makes a server with one account and these users' permissions.
func users(perms map[string]*server.Permissions) func(*server.Options) {
	return func(o *server.Options) {
		for name, p := range perms {
			o.Users = append(o.Users, &server.User{Username: name, Password: "right", Permissions: p})
		}
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

var quiet = slog.New(slog.DiscardHandler)

func TestConnect(t *testing.T) {
	denyInfo := &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"$JS.API.INFO"}}}
	denyInbox := &server.Permissions{Subscribe: &server.SubjectPermission{Allow: []string{"ok.>"}}}
	auth := users(map[string]*server.Permissions{"all": nil, "noinfo": denyInfo, "noinbox": denyInbox})
	token := func(o *server.Options) { o.Authorization = "s3cret" }
	missing := filepath.Join(t.TempDir(), "absent.creds")

	tests := map[string]struct {
		server func(*server.Options)
		flags  natsconn.Flags
		kind   natsconn.Kind // of the error; -1: none
		text   string        // in the error
	}{
		"open server":      {kind: -1},
		"right password":   {server: auth, flags: natsconn.Flags{User: "all", Password: "right"}, kind: -1},
		"wrong password":   {server: auth, flags: natsconn.Flags{User: "all", Password: "wrong"}, kind: natsconn.Refused, text: "refuses these credentials"},
		"no credentials":   {server: auth, kind: natsconn.Refused, text: "refuses these credentials"},
		"token":            {server: token, flags: natsconn.Flags{Token: "s3cret"}, kind: -1},
		"user is a token":  {server: token, flags: natsconn.Flags{User: "s3cret"}, kind: -1},
		"no jetstream":     {server: func(o *server.Options) { o.JetStream = false }, kind: natsconn.NoJetStream, text: "JetStream is not enabled"},
		"unknown domain":   {flags: natsconn.Flags{JSDomain: "hub"}, kind: natsconn.NoJetStream, text: "domain hub"},
		"info is denied":   {server: auth, flags: natsconn.Flags{User: "noinfo", Password: "right"}, kind: -1},
		"inbox is denied":  {server: auth, flags: natsconn.Flags{User: "noinbox", Password: "right"}, kind: natsconn.Denied, text: "lacks a permission"},
		"own inbox prefix": {server: auth, flags: natsconn.Flags{User: "noinbox", Password: "right", InboxPrefix: "ok.inbox"}, kind: -1},
		"missing file":     {flags: natsconn.Flags{Creds: missing}, kind: natsconn.BadFlags, text: missing},
		"key alone":        {flags: natsconn.Flags{TLSKey: "natsconn_test.go"}, kind: natsconn.BadFlags, text: "belong together"},
		"password alone":   {flags: natsconn.Flags{Password: "x"}, kind: natsconn.BadFlags, text: "--user"},
		"bad inbox prefix": {flags: natsconn.Flags{InboxPrefix: "a.>"}, kind: natsconn.BadFlags, text: "--inbox-prefix"},
		"unknown context":  {flags: natsconn.Flags{Context: "no-such-context"}, kind: natsconn.BadFlags, text: "no-such-context"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tt.flags.Server = serve(t, tt.server)
			nc, js, err := tt.flags.Connect(t.Context(), "test", quiet)
			if err == nil {
				defer nc.Close()
			}
			if tt.kind < 0 {
				if err != nil || js == nil {
					t.Fatalf("Connect: %v", err)
				}
				return
			}
			checkError(t, err, tt.kind, tt.text)
		})
	}
}

func checkError(t *testing.T, err error, kind natsconn.Kind, text string) {
	t.Helper()
	e, ok := errors.AsType[*natsconn.Error](err)
	if !ok || e.Kind != kind || !strings.Contains(err.Error(), text) {
		t.Fatalf("error %v, want kind %d with %q", err, kind, text)
	}
	if want := map[bool]int{true: 2, false: 1}[kind == natsconn.BadFlags]; e.ExitCode() != want {
		t.Errorf("exit code %d, want %d", e.ExitCode(), want)
	}
	if kind != natsconn.BadFlags && !strings.Contains(e.Hint(), "untouched") {
		t.Errorf("hint %q does not say what is safe", e.Hint())
	}
}

func TestNothingListens(t *testing.T) {
	f := natsconn.Flags{Server: "nats://user:hunter2@" + freePort(t)}
	_, _, err := f.Connect(t.Context(), "test", quiet)
	checkError(t, err, natsconn.Absent, "connection refused")
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the error shows the password: %v", err)
	}
}

func TestNotNATS(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var serving sync.WaitGroup
	defer serving.Wait()
	serving.Go(func() {
		if c, err := l.Accept(); err == nil {
			_, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
			c.Close()
		}
	})
	_, _, err = natsconn.Flags{Server: l.Addr().String()}.Connect(t.Context(), "test", quiet)
	if err == nil || !strings.Contains(err.Error(), "connect to nats") {
		t.Fatalf("error %v", err)
	}
}

func TestWaitsForServer(t *testing.T) {
	addr := freePort(t)
	_, port, _ := net.SplitHostPort(addr)
	type result struct {
		nc  *nats.Conn
		err error
	}
	done := make(chan result)
	go func() {
		nc, _, err := natsconn.Flags{Server: addr, ConnectWait: 20 * time.Second}.Connect(t.Context(), "test", quiet)
		done <- result{nc, err}
	}()
	<-time.After(250 * time.Millisecond) // some attempts fail
	serve(t, func(o *server.Options) { o.Port = atoi(port) })
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	r.nc.Close()
}

func TestCancelledWait(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("told to stop")
	cancel(cause)
	_, _, err := natsconn.Flags{Server: freePort(t), ConnectWait: time.Hour}.Connect(ctx, "test", quiet)
	if !errors.Is(err, cause) {
		t.Fatalf("error %v, want the cause", err)
	}
}

func TestContext(t *testing.T) {
	url := serve(t, users(map[string]*server.Permissions{"all": nil}))
	file := filepath.Join(t.TempDir(), "prod.json")
	write := func(password string) {
		buf, _ := json.Marshal(map[string]string{"url": url, "user": "all", "password": password})
		if err := os.WriteFile(file, buf, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("right")
	nc, _, err := natsconn.Flags{Context: file}.Connect(t.Context(), "test", quiet)
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()

	_, _, err = natsconn.Flags{Context: file, Server: freePort(t)}.Connect(t.Context(), "test", quiet)
	checkError(t, err, natsconn.Absent, "nothing answers") // --server wins

	write("wrong")
	_, _, err = natsconn.Flags{Context: file}.Connect(t.Context(), "test", quiet)
	checkError(t, err, natsconn.Refused, "context "+file)
}

func TestTLS(t *testing.T) {
	cert, ca := selfSigned(t)
	url := serve(t, func(o *server.Options) {
		o.TLS = true
		o.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	})
	_, _, err := natsconn.Flags{Server: url}.Connect(t.Context(), "test", quiet)
	checkError(t, err, natsconn.Insecure, "no TLS agreement")

	nc, _, err := natsconn.Flags{Server: url, TLSCA: ca}.Connect(t.Context(), "test", quiet)
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()

	plain := strings.Replace(serve(t, nil), "nats://", "tls://", 1)
	_, _, err = natsconn.Flags{Server: plain}.Connect(t.Context(), "test", quiet)
	checkError(t, err, natsconn.Insecure, "no TLS agreement")
}

func TestDiagnoseJoinsDenialToTimeout(t *testing.T) {
	deny := &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"$JS.API.STREAM.INFO.>"}}}
	url := serve(t, users(map[string]*server.Permissions{"u": deny}))
	var out bytes.Buffer
	nc, js, err := natsconn.Flags{Server: url, User: "u", Password: "right"}.Connect(t.Context(), "test", slog.New(slog.NewTextHandler(&out, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err = js.Stream(ctx, "LTX")
	for deadline := time.Now().Add(time.Minute); nc.LastError() == nil; <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no denial")
		}
	}
	err = natsconn.Diagnose(nc, err)
	checkError(t, err, natsconn.Denied, "$JS.API.STREAM.INFO.LTX")
	closed := make(chan struct{})
	nc.SetClosedHandler(func(*nats.Conn) { close(closed) })
	nc.Close()
	<-closed // handlers run in order: the log is complete
	if !strings.Contains(out.String(), "$JS.API.STREAM.INFO.LTX") {
		t.Errorf("the denial is not in the log: %s", out.String())
	}
}

func TestDiagnoseLeavesOthersAlone(t *testing.T) {
	nc, js, err := natsconn.Flags{Server: serve(t, nil)}.Connect(t.Context(), "test", quiet)
	if err != nil {
		t.Fatal(err)
	}
	_, err = js.Stream(t.Context(), "ABSENT")
	if got := natsconn.Diagnose(nc, err); got != err {
		t.Errorf("Diagnose changed %v to %v", err, got)
	}
	if got := natsconn.Diagnose(nc, nil); got != nil {
		t.Errorf("Diagnose(nil) = %v", got)
	}
	nc.Close()
	_, err = js.Stream(t.Context(), "LTX")
	checkError(t, natsconn.Diagnose(nc, err), natsconn.Absent, "nothing answers")
}

func TestNothingIsBufferedWhileDisconnected(t *testing.T) {
	opts := &server.Options{Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir()}
	s, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	nc, _, err := natsconn.Flags{Server: s.ClientURL()}.Connect(t.Context(), "test", quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	s.Shutdown()
	s.WaitForShutdown()
	for deadline := time.Now().Add(time.Minute); nc.Status() != nats.RECONNECTING; <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the connection did not notice")
		}
	}
	if err := nc.Publish("x", []byte("late")); err == nil {
		t.Error("a publish without a server was accepted")
	}
}

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"nats://a:b@h:1,nats://h2:2": "nats://xxxxx@h:1,nats://h2:2",
		"tok@h:1":                    "xxxxx@h:1",
		"h:1":                        "h:1",
		"nats://%zz:b@h":             "xxxxx@h",
	} {
		if got := natsconn.Redact(in); got != want {
			t.Errorf("Redact(%q) = %q, want %q", in, got, want)
		}
	}
}

func atoi(s string) (n int) {
	for _, c := range s {
		n = 10*n + int(c-'0')
	}
	return n
}

// selfSigned returns a certificate for 127.0.0.1 and its file.
func selfSigned(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}
