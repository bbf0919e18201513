package sftp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"github.com/ltxstream/ltxstream/objstore"
)

// link is one connection.
type link struct {
	pool *pool
	conn *heard
	ssh  *ssh.Client
	sftp *sftp.Client

	once sync.Once
	done chan struct{} // closed when it is of no more use
	err  error         // why; read after done
}

// connect dials, verifies the server, logs in and starts SFTP.
func (p *pool) connect() (*link, error) {
	ctx, cancel := context.WithTimeoutCause(p.ctx, p.cfg.ConnectTimeout, errSilent)
	defer cancel()
	l, err := p.handshake(ctx)
	switch {
	case err == nil:
		return l, nil
	case p.ctx.Err() != nil:
		return nil, errClosed
	case ctx.Err() != nil:
		err = errors.Join(context.Cause(ctx), err)
	}
	return nil, fmt.Errorf("connect to %s: %w", p.cfg.Addr, explainConnect(err, p.cfg.User))
}

func (p *pool) handshake(ctx context.Context) (_ *link, err error) {
	keys, err := p.cfg.hostKeys()
	if err != nil {
		return nil, finalError{err}
	}
	ways, done, err := p.cfg.login(ctx)
	if err != nil {
		return nil, finalError{err}
	}
	defer done()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", p.cfg.Addr)
	if err != nil {
		return nil, err
	}
	l := &link{pool: p, conn: &heard{Conn: conn}, done: make(chan struct{})}
	l.conn.note()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer func() {
		if !stop() && err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			l.fail(err)
		}
	}()
	c, chans, reqs, err := ssh.NewClientConn(l.conn, p.cfg.Addr, &ssh.ClientConfig{
		User: p.cfg.User, Auth: ways, HostKeyCallback: keys.check, HostKeyAlgorithms: keys.algorithms,
	})
	if err != nil {
		return nil, err
	}
	l.ssh = ssh.NewClient(c, chans, reqs)
	if l.sftp, err = sftp.NewClient(l.ssh, sftp.UseConcurrentWrites(true)); err != nil {
		return nil, err
	}
	if !p.spawn(l.watch) {
		return nil, errClosed
	}
	return l, nil
}

// explainConnect sorts the errors of connecting. What is not known is the
// network's.
func explainConnect(err error, user string) error {
	if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.IsNotFound {
		return err
	}
	if _, ok := errors.AsType[finalError](err); ok {
		return err
	}
	if _, ok := errors.AsType[*ssh.AlgorithmNegotiationError](err); ok {
		return fmt.Errorf("%w (for a host key: the server has no key of the types that are known of it)", err)
	}
	switch text := err.Error(); { // plain errors of x/crypto/ssh
	case strings.Contains(text, "unable to authenticate"), strings.Contains(text, "authentication failures"):
		return fmt.Errorf("%w: the server takes none of the keys and passwords for user %s: %w", fs.ErrPermission, user, err)
	case strings.Contains(text, "subsystem request failed"):
		return fmt.Errorf("the server offers no SFTP: %w", err)
	}
	return objstore.Transient(err)
}

// explain sorts the errors of a call. What is no answer of the server is the
// end of the connection.
func (l *link) explain(err error) error {
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission), errors.Is(err, fs.ErrExist),
		errors.Is(err, fs.ErrClosed), errors.Is(err, errors.ErrUnsupported), errors.Is(err, errShort):
		return err
	}
	if status, ok := errors.AsType[*sftp.StatusError](err); ok {
		switch status.FxCode() {
		case sftp.ErrSSHFxNoConnection, sftp.ErrSSHFxConnectionLost:
		case sftp.ErrSSHFxOpUnsupported:
			return fmt.Errorf("%w by the server: %w", errors.ErrUnsupported, err)
		case sftp.ErrSSHFxFailure:
			if strings.Contains(err.Error(), "not a directory") { // as servers in Go say it
				return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
			}
			return fmt.Errorf("%w (the server gives no reason; a full disk or quota is one)", err)
		default:
			return err
		}
	}
	l.fail(err)
	if errors.Is(l.err, errClosed) {
		return errClosed
	}
	return objstore.Transient(fmt.Errorf("connection to %s lost: %w", l.pool.cfg.Addr, l.err))
}

// fail ends the connection, once.
func (l *link) fail(err error) {
	l.once.Do(func() {
		if l.err = err; err == nil || errors.Is(err, io.EOF) {
			l.err = io.ErrUnexpectedEOF // io.EOF says that all is well
		}
		close(l.done)
		_ = l.conn.Close() // first: nothing waits for the peer after it
		if l.sftp != nil {
			_ = l.sftp.Close()
		}
		if l.ssh != nil {
			_ = l.ssh.Close()
		}
	})
}

func (l *link) ended() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// watch asks a server that was silent for one KeepAlive whether it is there, and
// ends the connection when two more pass in silence after the question.
func (l *link) watch() {
	every := l.pool.cfg.KeepAlive
	if !l.pool.spawn(func() { l.fail(l.ssh.Wait()) }) {
		return
	}
	timer := time.NewTimer(every)
	defer timer.Stop()
	answered := make(chan struct{})
	close(answered) // no question is open
	for {
		select {
		case <-l.done:
			return
		case <-timer.C:
		}
		if silent := l.conn.silent(); silent < every {
			timer.Reset(every - silent)
			continue
		}
		asked := time.Now()
		if isClosed(answered) {
			answered = make(chan struct{})
			if !l.pool.spawn(func() {
				defer close(answered)
				_, _, _ = l.ssh.SendRequest("keepalive@openssh.com", true, nil) // any answer will do
			}) {
				return
			}
		}
		timer.Reset(2 * every)
		select {
		case <-l.done:
			return
		case <-answered:
		case <-timer.C:
			if !l.conn.heardSince(asked) {
				l.fail(errSilent)
				return
			}
		}
		timer.Reset(every)
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// heard knows when its peer was heard last.
type heard struct {
	net.Conn
	last atomic.Int64 // UnixNano
}

func (h *heard) note() { h.last.Store(time.Now().UnixNano()) }

func (h *heard) heardSince(t time.Time) bool { return h.last.Load() > t.UnixNano() }

func (h *heard) silent() time.Duration { return time.Since(time.Unix(0, h.last.Load())) }

func (h *heard) Read(p []byte) (int, error) {
	n, err := h.Conn.Read(p)
	if n > 0 {
		h.note()
	}
	return n, err
}
