package main

import (
	"encoding/json"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/jedib0t/go-pretty/v6/progress"

	"github.com/ltxstream/ltxstream/internal/daemon"
)

// sized is a number of bytes for people.
func sized(n int64) string { return progress.UnitsBytes.Sprint(n) }

// fetchProgress shows how much of a restore was fetched: a bar on a terminal,
// lines of JSON where asked for, else nothing.
type fetchProgress struct {
	w       io.Writer
	json    bool
	bar     progress.Writer
	tracker *progress.Tracker
	ended   chan struct{}

	total, done atomic.Int64
	shown       atomic.Int64 // Unix nanoseconds
}

func newProgress(w io.Writer, asJSON bool) *fetchProgress { return &fetchProgress{w: w, json: asJSON} }

// begin starts to show; it may be called again with another total.
func (p *fetchProgress) begin(total int64) {
	p.total.Store(total)
	p.done.Store(0)
	if p.json || !daemon.IsTerminal(p.w) {
		return
	}
	if p.tracker != nil {
		p.tracker.UpdateTotal(total)
		p.tracker.SetValue(0)
		return
	}
	p.bar = progress.NewWriter()
	p.bar.SetOutputWriter(p.w)
	p.bar.SetAutoStop(false)
	p.bar.SetUpdateFrequency(100 * time.Millisecond)
	p.tracker = &progress.Tracker{Message: "fetching", Total: total, Units: progress.UnitsBytes}
	p.bar.AppendTracker(p.tracker)
	p.ended = make(chan struct{})
	go func() {
		defer close(p.ended)
		p.bar.Render()
	}()
}

// fetched is called from several goroutines.
func (p *fetchProgress) fetched(n int64) {
	p.done.Store(n)
	if p.tracker != nil {
		p.tracker.SetValue(n)
	}
	if !p.json {
		return
	}
	now, last := time.Now().UnixNano(), p.shown.Load()
	if now-last < int64(time.Second) || !p.shown.CompareAndSwap(last, now) {
		return
	}
	b, err := json.Marshal(map[string]int64{"fetched": n, "total": p.total.Load()})
	if err == nil {
		fmt.Fprintf(p.w, "%s\n", b)
	}
}

func (p *fetchProgress) end(ok bool) {
	if p.tracker == nil {
		return
	}
	if ok {
		p.tracker.MarkAsDone()
	} else {
		p.tracker.MarkAsErrored()
	}
	p.bar.Stop()
	<-p.ended
}
