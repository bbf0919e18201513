package storage

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ltxstream/ltxstream/testenv/child"
)

// VersityGW is one versitygw: S3 with real signatures, conditional writes and
// multipart uploads, on a directory. Where it keeps metadata in attributes of
// files, on ext4 for one, an upload may have some hundreds of parts, no more.
type VersityGW struct {
	URL                  string // the endpoint; buckets are in the path
	AccessKey, SecretKey string // of root, who may do everything

	bin, data string
}

// Credentials of root in every versitygw.
const (
	VersityAccessKey = "testroot"
	VersitySecretKey = "testrootsecret"
)

const (
	versityReady = 30 * time.Second
	versityPoll  = 5 * time.Millisecond
)

// StartVersityGW runs a server with the given buckets until the end of the test.
func StartVersityGW(t testing.TB, buckets ...string) *VersityGW {
	t.Helper()
	s := &VersityGW{AccessKey: VersityAccessKey, SecretKey: VersitySecretKey, bin: Find(t, "bin/versitygw")}
	dir := t.TempDir()
	s.data = filepath.Join(dir, "data")
	for _, name := range []string{"data", "iam", "sidecar"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range buckets {
		s.MakeBucket(t, name)
	}
	for attempt := 0; s.URL == ""; attempt++ { // a free port may be taken by the time it is used
		if err := s.start(t, dir); err != nil && attempt == 2 {
			t.Fatal(err)
		}
	}
	return s
}

func (s *VersityGW) start(t testing.TB, dir string) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	addr := ln.Addr().String()
	ln.Close()
	cmd := exec.Command(s.bin, "--port", addr, "--quiet", "--keep-alive", "--health", "/health",
		"--iam-dir", filepath.Join(dir, "iam"), "posix")
	if unix.Setxattr(s.data, "user.ltxstream", []byte("x"), 0) != nil { // metadata in files of their own: slow
		cmd.Args = append(cmd.Args, "--sidecar", filepath.Join(dir, "sidecar"))
	}
	cmd.Args = append(cmd.Args, s.data)
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+s.AccessKey, "ROOT_SECRET_KEY="+s.SecretKey)
	p, err := child.StartForeign(cmd, syscall.SIGKILL, nil)
	if err != nil {
		return err
	}
	stop := func() {
		ctx, cancel := context.WithTimeout(context.Background(), versityReady)
		defer cancel()
		_ = p.Stop(ctx) // killed: never a clean end
	}
	if err := healthy(t, p, "http://"+addr+"/health"); err != nil {
		stop()
		return err
	}
	t.Cleanup(stop)
	s.URL = "http://" + addr
	return nil
}

// healthy returns once the server answers.
func healthy(t testing.TB, p *child.Process, url string) error {
	transport := &http.Transport{DisableKeepAlives: true}
	client := http.Client{Transport: transport, Timeout: versityReady}
	for deadline := time.Now().Add(versityReady); ; {
		resp, err := client.Get(url)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			err = fmt.Errorf("%s", resp.Status)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("versitygw is not ready after %s: %w", versityReady, err)
		}
		select {
		case <-p.Done():
			return fmt.Errorf("versitygw ended: %w", p.Err())
		case <-t.Context().Done():
			return context.Cause(t.Context())
		case <-time.After(versityPoll):
		}
	}
}

// MakeBucket adds an empty bucket.
func (s *VersityGW) MakeBucket(t testing.TB, name string) {
	t.Helper()
	if err := os.Mkdir(filepath.Join(s.data, name), 0o755); err != nil {
		t.Fatal(err)
	}
}

// AddUser adds a user who may do nothing with root's buckets.
func (s *VersityGW) AddUser(t testing.TB, accessKey, secretKey string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), s.bin, "admin", "--access", s.AccessKey, "--secret", s.SecretKey, "--endpoint-url", s.URL,
		"create-user", "--access", accessKey, "--secret", secretKey, "--role", "user")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("create user %s: %v: %s", accessKey, err, out)
	}
}
