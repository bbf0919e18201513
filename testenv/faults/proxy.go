package faults

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Fault is how a proxy treats bytes. The zero value passes them on.
type Fault struct {
	Latency   time.Duration // added in each direction, throughput unchanged
	Bandwidth int64         // bytes per second in each direction of each connection; 0 means no limit
	// BlackHole holds all bytes back while it is set, and lets new connections hang: what a network does that loses every
	// packet. Once cleared, what was held back arrives.
	BlackHole bool
}

// Direction is which way bytes go through a proxy.
type Direction int

// The directions.
const (
	Up   Direction = iota // client to server
	Down                  // server to client
)

// Proxy forwards TCP connections to one target. Safe for concurrent use.
type Proxy struct {
	addr, target string
	wg           sync.WaitGroup

	mu struct {
		sync.Mutex
		fault   Fault
		changed chan struct{} // closed and replaced when the fault changes
		budget  [2]int64      // bytes until a connection is cut; negative: never
		conns   map[*link]struct{}
		ln      net.Listener // nil while refusing
		closed  bool
	}
}

// New starts a proxy to target ("127.0.0.1:4222") on a free loopback port.
func New(target string) (*Proxy, error) {
	p := &Proxy{target: target}
	p.mu.changed = make(chan struct{})
	p.mu.conns = map[*link]struct{}{}
	p.mu.budget = [2]int64{-1, -1}
	if err := p.listen("127.0.0.1:0"); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *Proxy) listen(addr string) error {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	p.addr, p.mu.ln = ln.Addr().String(), ln
	p.wg.Go(func() { p.accept(ln) })
	return nil
}

// Addr is where clients connect to, host:port. It stays the same through Cut and Restore.
func (p *Proxy) Addr() string { return p.addr }

// Set replaces the fault in force.
func (p *Proxy) Set(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.fault = f
	p.signal()
}

// signal wakes all who wait on the fault. The lock is held.
func (p *Proxy) signal() {
	close(p.mu.changed)
	p.mu.changed = make(chan struct{})
}

// CutAfter lets n more bytes pass in direction d, counted over all connections, and then resets the connection that carries
// the last of them: a message truncated on its way. Later connections are not touched.
func (p *Proxy) CutAfter(d Direction, n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.budget[d] = n
}

// Reset ends every open connection with RST, on both sides, and returns their number. New ones are accepted.
func (p *Proxy) Reset() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.mu.conns {
		l.reset()
	}
	return len(p.mu.conns)
}

// Cut resets every connection and refuses new ones until Restore.
func (p *Proxy) Cut() {
	p.mu.Lock()
	if p.mu.ln != nil {
		_ = p.mu.ln.Close()
		p.mu.ln = nil
	}
	p.mu.Unlock()
	p.Reset()
}

// Restore ends a Cut and clears the fault. It fails when another process has taken the port meanwhile.
func (p *Proxy) Restore() error {
	p.Set(Fault{})
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.ln != nil || p.mu.closed {
		return nil
	}
	return p.listen(p.addr)
}

// Close ends the proxy and all its connections, and returns when its goroutines have ended.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.mu.closed = true
	p.signal()
	p.mu.Unlock()
	p.Cut()
	p.wg.Wait()
}

func (p *Proxy) accept(ln net.Listener) {
	for {
		client, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		p.wg.Go(func() { p.serve(client) })
	}
}

func (p *Proxy) serve(client net.Conn) {
	server, err := net.DialTimeout("tcp", p.target, 5*time.Second)
	if err != nil {
		resetConn(client)
		return
	}
	l := &link{proxy: p, client: client, server: server, done: make(chan struct{})}
	if !p.add(l) {
		l.reset()
		return
	}
	l.run()
	p.mu.Lock()
	delete(p.mu.conns, l)
	p.mu.Unlock()
}

// add registers l, unless connections are refused by now.
func (p *Proxy) add(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.ln == nil {
		return false
	}
	p.mu.conns[l] = struct{}{}
	return true
}

// now returns the fault in force once it lets bytes pass; ok is false when the link ended before.
func (p *Proxy) now(done <-chan struct{}) (f Fault, ok bool) {
	for {
		p.mu.Lock()
		f, changed, closed := p.mu.fault, p.mu.changed, p.mu.closed
		p.mu.Unlock()
		if closed {
			return f, false
		}
		if !f.BlackHole {
			return f, true
		}
		select {
		case <-changed:
		case <-done:
			return f, false
		}
	}
}

// spend takes up to n bytes from the budget of d and returns how many may pass; cut is true when they are the last.
func (p *Proxy) spend(d Direction, n int) (pass int, cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	left := p.mu.budget[d]
	if left < 0 {
		return n, false
	}
	if int64(n) < left {
		p.mu.budget[d] -= int64(n)
		return n, false
	}
	p.mu.budget[d] = -1
	return int(left), true
}
