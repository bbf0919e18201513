package sftp

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

// server is an SFTP server in this process whose connections can be cut at any
// request. It takes the password "secret".
type server struct {
	addr    string
	hostKey string
	// requests counts what arrived.
	requests atomic.Int64
	// at decides what happens on a request of a type (SSH_FXP_...).
	at atomic.Pointer[func(typ byte) verdict]

	l  net.Listener
	wg sync.WaitGroup
	mu struct {
		sync.Mutex
		conns map[net.Conn]bool
	}
}

type verdict int

const (
	pass    verdict = iota
	cut             // the connection ends before the server sees the request
	swallow         // the server never sees it, nor anything behind it
)

// Request types of SFTP 3.
const (
	typOpen, typClose, typRead, typWrite      = 3, 4, 5, 6
	typReaddir, typLstat, typRename, typExtra = 12, 7, 18, 200
)

func newSigner(t testing.TB) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func startServer(t testing.TB) *server {
	t.Helper()
	key := newSigner(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{l: l, addr: l.Addr().String(), hostKey: string(ssh.MarshalAuthorizedKey(key.PublicKey()))}
	s.mu.conns = map[net.Conn]bool{}
	cfg := &ssh.ServerConfig{PasswordCallback: func(_ ssh.ConnMetadata, password []byte) (*ssh.Permissions, error) {
		if string(password) != "secret" {
			return nil, errors.New("wrong password")
		}
		return nil, nil
	}}
	cfg.AddHostKey(key)
	s.wg.Go(func() { s.accept(cfg) })
	t.Cleanup(func() {
		_ = l.Close()
		s.drop()
		s.wg.Wait()
	})
	return s
}

func (s *server) accept(cfg *ssh.ServerConfig) {
	for {
		c, err := s.l.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.mu.conns[c] = true
		s.mu.Unlock()
		s.wg.Go(func() {
			s.serve(c, cfg)
			_ = c.Close()
			s.mu.Lock()
			delete(s.mu.conns, c)
			s.mu.Unlock()
		})
	}
}

// drop cuts all connections.
func (s *server) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.mu.conns {
		_ = c.Close()
	}
}

func (s *server) serve(c net.Conn, cfg *ssh.ServerConfig) {
	conn, channels, requests, err := ssh.NewServerConn(c, cfg)
	if err != nil {
		return
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer conn.Close()
	wg.Go(func() { ssh.DiscardRequests(requests) })
	for offered := range channels {
		ch, requests, err := offered.Accept()
		if err != nil {
			return
		}
		wg.Go(func() {
			for r := range requests {
				_ = r.Reply(r.Type == "subsystem", nil)
			}
		})
		wg.Go(func() {
			files, err := sftp.NewServer(&tapped{Channel: ch, s: s, conn: c})
			if err == nil {
				_ = files.Serve()
				_ = files.Close()
			}
			_ = ch.Close()
		})
	}
}

// tapped sees the requests on their way to the server.
type tapped struct {
	ssh.Channel
	s    *server
	conn net.Conn

	frame []byte // one whole request, what of it was not read yet
}

func (c *tapped) Read(p []byte) (int, error) {
	if len(c.frame) == 0 {
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.frame)
	c.frame = c.frame[n:]
	return n, nil
}

func (c *tapped) next() error {
	head := make([]byte, 5)
	if _, err := io.ReadFull(c.Channel, head); err != nil {
		return err
	}
	frame := make([]byte, 4+binary.BigEndian.Uint32(head))
	copy(frame, head)
	if _, err := io.ReadFull(c.Channel, frame[5:]); err != nil {
		return err
	}
	c.s.requests.Add(1)
	if at := c.s.at.Load(); at != nil {
		switch (*at)(head[4]) {
		case cut:
			_ = c.conn.Close()
			return io.EOF
		case swallow:
			_, err := io.Copy(io.Discard, c.Channel)
			return errors.Join(io.EOF, err)
		}
	}
	c.frame = frame
	return nil
}

// on makes verdict v of the nth request of a type, once.
func (s *server) on(typ byte, nth int64, v verdict) {
	var seen atomic.Int64
	f := func(t byte) verdict {
		if t == typ && seen.Add(1) == nth {
			return v
		}
		return pass
	}
	s.at.Store(&f)
}

func (s *server) config(path string) Config {
	return Config{Addr: s.addr, User: "tester", Path: path, HostKey: s.hostKey, Password: "secret"}
}
