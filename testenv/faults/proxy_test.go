package faults

import (
	"bytes"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

// echo starts a server that sends back what it gets, and a proxy to it.
func echo(t *testing.T) *Proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	p, err := New(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close(); _ = ln.Close(); <-done })
	return p
}

func dial(t *testing.T, p *Proxy) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	return c
}

// roundTrip sends b and returns how long its echo took.
func roundTrip(t *testing.T, c net.Conn, b []byte) time.Duration {
	t.Helper()
	start := time.Now()
	sent := make(chan error, 1)
	go func() { _, err := c.Write(b); sent <- err }()
	got := make([]byte, len(b))
	if _, err := io.ReadFull(c, got); err != nil {
		t.Fatal(err)
	}
	if err := <-sent; err != nil || !bytes.Equal(b, got) {
		t.Fatalf("the echo differs, %v", err)
	}
	return time.Since(start)
}

func TestPassesBytes(t *testing.T) {
	t.Parallel()
	p := echo(t)
	b := make([]byte, 1<<20)
	for i := range b {
		b[i] = byte(i * i >> 3)
	}
	roundTrip(t, dial(t, p), b)
}

func TestLatencyDelaysButKeepsThroughput(t *testing.T) {
	t.Parallel()
	p := echo(t)
	c := dial(t, p)
	p.Set(Fault{Latency: 50 * time.Millisecond})
	if d := roundTrip(t, c, []byte("x")); d < 100*time.Millisecond {
		t.Errorf("a round trip took %s", d)
	}
	// 640 chunks one after the other would take 64 s.
	if d := roundTrip(t, c, make([]byte, 640*chunkSize)); d > 30*time.Second {
		t.Errorf("10 MiB took %s", d)
	}
}

func TestBandwidth(t *testing.T) {
	t.Parallel()
	p := echo(t)
	p.Set(Fault{Bandwidth: 1 << 20})
	if d := roundTrip(t, dial(t, p), make([]byte, 256<<10)); d < 250*time.Millisecond {
		t.Errorf("256 KiB at 1 MiB/s took %s", d)
	}
}

func TestBlackHoleHoldsAndReleases(t *testing.T) {
	t.Parallel()
	p := echo(t)
	c := dial(t, p)
	roundTrip(t, c, []byte("before"))
	p.Set(Fault{BlackHole: true})
	if _, err := c.Write([]byte("held")); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	b := make([]byte, 4)
	if n, err := c.Read(b); err == nil {
		t.Fatalf("%q came through", b[:n])
	}
	p.Set(Fault{})
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "held" {
		t.Fatalf("%q, %v", b, err)
	}
}

func TestResetIsRST(t *testing.T) {
	t.Parallel()
	p := echo(t)
	c := dial(t, p)
	roundTrip(t, c, []byte("before"))
	if n := p.Reset(); n != 1 {
		t.Fatalf("reset %d connections", n)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("got %v", err)
	}
	roundTrip(t, dial(t, p), []byte("a new one"))
}

func TestCutRefusesUntilRestored(t *testing.T) {
	t.Parallel()
	p := echo(t)
	c := dial(t, p)
	roundTrip(t, c, []byte("before"))
	p.Cut()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Fatal("the connection lives")
	}
	if other, err := net.Dial("tcp", p.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
		if err == nil {
			_ = other.Close()
		}
		t.Fatalf("got %v", err)
	}
	if err := p.Restore(); err != nil {
		t.Fatal(err)
	}
	roundTrip(t, dial(t, p), []byte("after"))
}

func TestCutAfterTruncates(t *testing.T) {
	t.Parallel()
	p := echo(t)
	c := dial(t, p)
	p.CutAfter(Down, 10)
	if _, err := c.Write([]byte("0123456789abcdef")); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err == nil || len(got) > 10 {
		t.Fatalf("%q, %v", got, err)
	}
	roundTrip(t, dial(t, p), []byte("the next connection is whole"))
}

func TestUpstreamIsCut(t *testing.T) {
	t.Parallel()
	p := echo(t)
	c := dial(t, p)
	p.CutAfter(Up, 0)
	_, _ = c.Write([]byte("x"))
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Fatalf("read %d bytes", n)
	}
}

func TestTargetAwayResetsClient(t *testing.T) {
	t.Parallel()
	p, err := New("127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		return // reset before it was said to be connected
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Fatal("read from a target that is not there")
	}
}
