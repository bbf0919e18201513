package publisher

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestGateLetsNThroughAtATime(t *testing.T) {
	for _, n := range []int{1, 3} {
		synctest.Test(t, func(t *testing.T) {
			g := NewGate(n)
			var in, most atomic.Int32
			for range 10 {
				go func() {
					leave, err := g.enter(t.Context())
					if err != nil {
						t.Error(err)
						return
					}
					most.Store(max(most.Load(), in.Add(1)))
					time.Sleep(time.Second)
					in.Add(-1)
					leave()
				}()
			}
			synctest.Wait()
			if got := in.Load(); got != int32(n) {
				t.Errorf("%d entered at once, want %d", got, n)
			}
			time.Sleep(time.Minute)
			if got := most.Load(); got != int32(n) || in.Load() != 0 {
				t.Errorf("%d at one time, want %d; %d are still in", got, n, in.Load())
			}
		})
	}
}

func TestGateEndsWithTheContext(t *testing.T) {
	g := NewGate(1)
	leave, err := g.enter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer leave()
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	if _, err := g.enter(ctx); !errors.Is(err, stop) {
		t.Fatalf("%v, want %v", err, stop)
	}
}

func TestNilGateIsOpen(t *testing.T) {
	var g *Gate
	for range 3 {
		if _, err := g.enter(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
