package sftp

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// stall is a proxy that can stop passing bytes on without closing anything.
type stall struct {
	addr    string
	stall   atomic.Bool
	conns   atomic.Int64
	answers atomic.Int64 // reads of what the server sends
}

func startStall(t *testing.T, to string) *stall {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &stall{addr: l.Addr().String()}
	var wg sync.WaitGroup
	var open sync.Map
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			p.conns.Add(1)
			out, err := net.Dial("tcp", to)
			if err != nil {
				_ = in.Close()
				continue
			}
			open.Store(in, out)
			wg.Go(func() { p.pass(in, out, nil) })
			wg.Go(func() { p.pass(out, in, &p.answers) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		p.stall.Store(false)
		open.Range(func(in, out any) bool {
			_ = in.(net.Conn).Close()
			_ = out.(net.Conn).Close()
			return true
		})
		wg.Wait()
	})
	return p
}

// answered waits until the server has sent n times more: false if it is no more
// asked to.
func (p *stall) answered(n int64) bool {
	n += p.answers.Load()
	for deadline := time.Now().Add(20 * time.Second); p.answers.Load() < n; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// pass counts the reads, if count is not nil.
func (p *stall) pass(from, to net.Conn, count *atomic.Int64) {
	defer to.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if count != nil {
			count.Add(1)
		}
		for p.stall.Load() {
			time.Sleep(time.Millisecond)
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}
