package faults

import (
	"net"
	"sync"
	"time"
)

const (
	chunkSize = 16 << 10
	queueLen  = 256 // chunks on their way under latency: 4 MiB in each direction
)

// link is one proxied connection.
type link struct {
	proxy          *Proxy
	client, server net.Conn
	done           chan struct{}
	once           sync.Once
}

// chunk is bytes on their way, due to arrive not before at.
type chunk struct {
	b  []byte
	at time.Time
}

// run forwards both directions until either ends, then closes both.
func (l *link) run() {
	var wg sync.WaitGroup
	for _, d := range []Direction{Up, Down} {
		queue := make(chan chunk, queueLen)
		wg.Go(func() { l.receive(d, queue) })
		wg.Go(func() { l.deliver(d, queue) })
	}
	wg.Wait()
}

func (l *link) ends(d Direction) (from, to net.Conn) {
	if d == Up {
		return l.client, l.server
	}
	return l.server, l.client
}

// receive reads bytes and stamps them with their arrival. It ends at the end of the stream; deliver then ends the link.
func (l *link) receive(d Direction, queue chan<- chunk) {
	defer close(queue)
	from, _ := l.ends(d)
	for {
		b := make([]byte, chunkSize)
		n, err := from.Read(b)
		if n > 0 {
			f, ok := l.proxy.now(l.done)
			if !ok {
				return
			}
			select {
			case queue <- chunk{b: b[:n], at: time.Now().Add(f.Latency)}:
			case <-l.done:
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// deliver writes bytes when they are due, at the bandwidth in force, and closes the link after the last.
func (l *link) deliver(d Direction, queue <-chan chunk) {
	defer l.close()
	_, to := l.ends(d)
	for c := range queue {
		if !l.wait(time.Until(c.at)) {
			return
		}
		f, ok := l.proxy.now(l.done)
		if !ok {
			return
		}
		if f.Bandwidth > 0 && !l.wait(time.Duration(int64(len(c.b))*int64(time.Second)/f.Bandwidth)) {
			return
		}
		pass, cut := l.proxy.spend(d, len(c.b))
		if _, err := to.Write(c.b[:pass]); err != nil {
			return
		}
		if cut {
			l.reset()
			return
		}
	}
}

// wait reports whether d passed before the link ended.
func (l *link) wait(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-l.done:
		return false
	}
}

// close ends both connections in the ordinary way.
func (l *link) close() {
	l.once.Do(func() {
		close(l.done)
		_ = l.client.Close()
		_ = l.server.Close()
	})
}

// reset ends both connections with RST.
func (l *link) reset() {
	l.once.Do(func() {
		close(l.done)
		resetConn(l.client)
		resetConn(l.server)
	})
}

func resetConn(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}
