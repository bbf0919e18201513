package pace

import (
	"context"
	"testing"
	"time"
)

func TestPacerKeepsItsRate(t *testing.T) {
	t.Parallel()
	p, start := NewPacer(1000), time.Now()
	for range 200 {
		if _, ok := p.Wait(t.Context()); !ok {
			t.Fatal("stopped")
		}
	}
	if d := time.Since(start); d < 190*time.Millisecond {
		t.Fatalf("200 events at 1000/s took %s", d)
	}
}

func TestPacerMakesUpForAStall(t *testing.T) {
	t.Parallel()
	p := NewPacer(100)
	Sleep(50 * time.Millisecond)
	first, _ := p.Wait(t.Context())
	second, _ := p.Wait(t.Context())
	if got := second.Sub(first); got != 10*time.Millisecond {
		t.Fatalf("due times %s apart", got)
	}
	if time.Now().Before(second) {
		t.Fatal("returned before it was due")
	}
}

func TestWaitEndsWithContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if SleepUntil(ctx, time.Now().Add(time.Hour)) {
		t.Fatal("reached a time an hour from now")
	}
	if _, ok := NewPacer(0).Wait(ctx); ok {
		t.Fatal("a pacer without a rate ignores its context")
	}
}
