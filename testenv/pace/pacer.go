package pace

import (
	"context"
	"time"

	"golang.org/x/sys/unix"
)

// longSleep is the part of a wait that the runtime's timers do well enough, and that a context can end.
const longSleep = 3 * time.Millisecond

// Sleep blocks the calling thread for about d (the kernel's timer slack is some 50 µs). It cannot be interrupted;
// use it for d of a few milliseconds at most.
func Sleep(d time.Duration) {
	if d <= 0 {
		return
	}
	tv := unix.NsecToTimeval(int64(d))
	_, _ = unix.Select(0, nil, nil, nil, &tv) // an early wake-up by a signal is harmless to every caller
}

// SleepUntil waits until at or until ctx ends, precisely, and reports whether at was reached.
func SleepUntil(ctx context.Context, at time.Time) bool {
	if d := time.Until(at) - longSleep; d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-ctx.Done():
			return false
		case <-t.C:
		}
	}
	Sleep(time.Until(at))
	return ctx.Err() == nil
}

// Pacer spaces events at a fixed rate in an open loop: an event that comes late does not move those after it, so that
// what stalls the caller shows up as latency and not as a lower rate.
type Pacer struct {
	start time.Time
	step  time.Duration
	n     int64
}

// NewPacer returns a Pacer of perSecond events a second, starting now. Zero or less means without any pause.
func NewPacer(perSecond float64) *Pacer {
	p := &Pacer{start: time.Now()}
	if perSecond > 0 {
		p.step = time.Duration(float64(time.Second) / perSecond)
	}
	return p
}

// Wait blocks until the next event is due and returns that time; ok is false when ctx ended.
// Not safe for concurrent use.
func (p *Pacer) Wait(ctx context.Context) (due time.Time, ok bool) {
	if p.step == 0 {
		return time.Now(), ctx.Err() == nil
	}
	due = p.start.Add(time.Duration(p.n) * p.step)
	p.n++
	return due, SleepUntil(ctx, due)
}
