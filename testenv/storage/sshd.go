package storage

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// SSHD is OpenSSH's server on a loopback port, with SFTP for one user who logs
// in with a key.
type SSHD struct {
	Addr       string // host:port
	User       string // who runs the tests: the server needs no other rights
	Identity   string // file of the key that it takes
	KnownHosts string // file with its host keys

	t   testing.TB
	bin string
	dir string
	cmd *exec.Cmd
}

const howSSHD = "apt-get install openssh-server"

// StartSSHD starts a server that ends with the test.
func StartSSHD(t testing.TB) *SSHD {
	t.Helper()
	bin, err := exec.LookPath("sshd")
	if err != nil {
		bin = "/usr/sbin/sshd" // not in everybody's PATH
	}
	if _, err := os.Stat(bin); err != nil {
		Missing(t, "sshd", howSSHD)
	}
	if os.Getuid() == 0 { // where it drops its rights; the service makes it otherwise
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	s := &SSHD{t: t, bin: bin, dir: t.TempDir(), User: me.Username, Addr: freeAddr(t)}
	s.Identity, s.KnownHosts = filepath.Join(s.dir, "identity"), filepath.Join(s.dir, "known_hosts")
	s.configure()
	s.Start()
	t.Cleanup(s.Stop)
	return s
}

func freeAddr(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// configure makes the keys and the server's configuration.
func (s *SSHD) configure() {
	host, port, _ := net.SplitHostPort(s.Addr)
	var known, hostKeys strings.Builder
	for _, kind := range []string{"ed25519", "ecdsa", "rsa"} {
		file := s.keygen(kind, "host_"+kind)
		fmt.Fprintf(&hostKeys, "HostKey %s\n", file)
		if kind == "ed25519" { // one is enough: a client must ask for the kind it knows
			fmt.Fprintf(&known, "[%s]:%s %s", host, port, s.read(file+".pub"))
		}
	}
	s.keygen("ed25519", "identity")
	s.write("known_hosts", known.String())
	s.write("authorized_keys", s.read(s.Identity+".pub"))
	s.write("sshd_config", hostKeys.String()+fmt.Sprintf(`Port %s
ListenAddress %s
AuthorizedKeysFile %s
PidFile none
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxStartups 100
Subsystem sftp internal-sftp
`, port, host, filepath.Join(s.dir, "authorized_keys")))
}

func (s *SSHD) keygen(kind, name string) string {
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		Missing(s.t, "ssh-keygen", howSSHD)
	}
	file := filepath.Join(s.dir, name)
	if out, err := exec.Command("ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "test", "-f", file).CombinedOutput(); err != nil {
		s.t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
	return file
}

func (s *SSHD) read(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(b)
}

func (s *SSHD) write(name, text string) {
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// Start runs the server and waits until it takes connections.
func (s *SSHD) Start() {
	s.t.Helper()
	log := filepath.Join(s.dir, "log")
	s.cmd = exec.Command(s.bin, "-D", "-f", filepath.Join(s.dir, "sshd_config"), "-E", log)
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", s.Addr)
		if err == nil {
			_ = c.Close()
			return
		}
		if time.Now().After(deadline) {
			b, _ := os.ReadFile(log)
			s.Stop()
			s.t.Fatalf("sshd does not start: %v\n%s", err, b)
		}
	}
}

// Stop kills the server and its sessions. Start runs it again.
func (s *SSHD) Stop() {
	if s.cmd == nil {
		return
	}
	sessions := s.sessions()
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	s.cmd = nil
	kill(sessions)
}

// Drop kills the sessions that are there.
func (s *SSHD) Drop() { kill(s.sessions()) }

func kill(processes []*os.Process) {
	for _, p := range processes {
		_ = p.Kill()
	}
}

// sessions are the processes below the server's; each connection has one, or
// two where the server gave up its rights.
func (s *SSHD) sessions() (found []*os.Process) {
	if s.cmd == nil {
		return nil
	}
	above := map[string]bool{strconv.Itoa(s.cmd.Process.Pid): true}
	for more := true; more; {
		more = false
		stats, _ := filepath.Glob("/proc/[0-9]*/stat")
		for _, file := range stats {
			pid := filepath.Base(filepath.Dir(file))
			b, err := os.ReadFile(file)
			end := bytes.LastIndexByte(b, ')') // of the name, which may hold anything
			if err != nil || end < 0 || above[pid] {
				continue
			}
			if fields := strings.Fields(string(b[end+1:])); len(fields) > 1 && above[fields[1]] {
				n, _ := strconv.Atoi(pid)
				if p, err := os.FindProcess(n); err == nil {
					found = append(found, p)
				}
				above[pid], more = true, true
			}
		}
	}
	return found
}
