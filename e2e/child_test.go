package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/embedded"
	"github.com/ltxstream/ltxstream/publisher"
	"github.com/ltxstream/ltxstream/subscriber"
	"github.com/ltxstream/ltxstream/testenv/child"
	"github.com/ltxstream/ltxstream/testenv/steps"
	"github.com/ltxstream/ltxstream/wire"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/superfly/ltx"
)

// roleSpec is what a child process is to run.
type roleSpec struct {
	URL  string
	DB   wire.DB
	Path string

	StateDir   string // "": the default
	SpoolLimit int64  // of a publisher
}

// pubReport and subReport are what the children say, a few times a second.
type pubReport struct {
	Status publisher.Status
	Syncs  int     // answered since the start
	Pos    ltx.Pos // of the last one
}

type subReport struct{ Status subscriber.Status }

const reportEvery = 20 * time.Millisecond

func jobs() child.Jobs {
	return child.Jobs{"e2e-publisher": publisherJob, "e2e-subscriber": subscriberJob, "e2e-early-reader": earlyReaderJob, "e2e-server": serverJob, "e2e-follower": followerJob}
}

func connectChild(raw json.RawMessage) (s roleSpec, nc *nats.Conn, js jetstream.JetStream, err error) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	if err = json.Unmarshal(raw, &s); err != nil {
		return
	}
	nc, err = nats.Connect(s.URL, nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond), nats.ReconnectBufSize(-1), nats.RetryOnFailedConnect(true))
	if err != nil {
		return
	}
	js, err = jetstream.New(nc)
	return
}

// publisherJob publishes; at each SIGUSR1 it syncs.
func publisherJob(ctx context.Context, raw json.RawMessage, out *child.Output) error {
	s, nc, js, err := connectChild(raw)
	if err != nil {
		return err
	}
	defer nc.Close()
	p, err := publisher.New(publisher.Config{
		JS: js, DB: s.DB, Path: s.Path, StateDir: s.StateDir, SpoolLimit: s.SpoolLimit, SoftWALLimit: 256 << 10, SoleOwner: true,
	})
	if err != nil {
		return err
	}
	asked := make(chan os.Signal, 16)
	signal.Notify(asked, syscall.SIGUSR1)
	reporting(ctx, func(ctx context.Context) {
		r := pubReport{}
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(reportEvery):
			case <-asked:
				if pos, err := p.Sync(ctx); err == nil {
					r.Syncs, r.Pos = r.Syncs+1, pos
				}
			}
			r.Status = p.Status()
			if out.Send(r) != nil {
				return
			}
		}
	}, func() { err = p.Run(ctx) })
	return err
}

func subscriberJob(ctx context.Context, raw json.RawMessage, out *child.Output) error {
	s, nc, js, err := connectChild(raw)
	if err != nil {
		return err
	}
	defer nc.Close()
	return runSubscriber(ctx, subscriber.Config{JS: js, DB: s.DB, Path: s.Path, StateDir: s.StateDir, SoftWALLimit: 128 << 10, SoleOwner: true}, out)
}

// runSubscriber runs a subscriber and reports its status.
func runSubscriber(ctx context.Context, cfg subscriber.Config, out *child.Output) error {
	sub, err := subscriber.New(cfg)
	if err != nil {
		return err
	}
	reporting(ctx, func(ctx context.Context) {
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(reportEvery):
			}
			if out.Send(subReport{sub.Status()}) != nil {
				return
			}
		}
	}, func() { err = sub.Run(ctx) })
	return err
}

// serverSpec is a server of the product's own in a process of its own.
type serverSpec struct {
	Dir, Listen string
	MaxPayload  int32  // 0: the default
	Watch       string // unless "": where it offers itself to be watched
}

func serverJob(ctx context.Context, raw json.RawMessage, out *child.Output) error {
	var s serverSpec
	if err := json.Unmarshal(raw, &s); err != nil {
		return err
	}
	if s.Watch != "" {
		if err := steps.Offer(s.Watch); err != nil {
			return err
		}
	}
	srv, err := embedded.New(embedded.Config{Dir: s.Dir, Listen: s.Listen, MaxPayload: s.MaxPayload, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	if err := srv.Start(ctx); err != nil {
		return err
	}
	if err := out.Send(srv.ClientURL()); err != nil {
		return err
	}
	<-ctx.Done()
	return srv.Shutdown()
}

// reporting runs report beside run.
func reporting(ctx context.Context, report func(context.Context), run func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		report(ctx)
	}()
	run()
	cancel()
	<-done
}

// roleProcess is a role in a process of its own, which can be killed.
type roleProcess[T any] struct {
	t    testing.TB
	job  string
	spec roleSpec
	*child.Process
	reports *child.Reports[T]
}

func runRole[T any](t testing.TB, job string, spec roleSpec) *roleProcess[T] {
	t.Helper()
	r := &roleProcess[T]{t: t, job: job, spec: spec}
	r.begin()
	t.Cleanup(func() { r.Kill() })
	return r
}

func (r *roleProcess[T]) begin() {
	r.t.Helper()
	var zero T
	r.reports = child.NewReports(zero, nil)
	p, err := child.Start(r.job, r.spec, r.reports.Line)
	if err != nil {
		r.t.Fatal(err)
	}
	r.Process = p
}

// killAndRestart is a SIGKILL and a new start.
func (r *roleProcess[T]) killAndRestart() {
	r.t.Helper()
	r.Kill()
	r.begin()
}

func (r *roleProcess[T]) waitFor(what string, cond func(T) bool) T {
	r.t.Helper()
	return r.waitWithin(patience, what, cond)
}

// waitWithin is waitFor for what takes longer.
func (r *roleProcess[T]) waitWithin(limit time.Duration, what string, cond func(T) bool) T {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	rep, err := r.reports.WaitFor(ctx, r.Process, func(v T) (bool, error) { return cond(v), nil })
	if err != nil {
		last, lastErr := r.reports.Last()
		r.t.Fatalf("%s: wait for %s: %v; last report %+v %v", r.job, what, errors.Join(err, lastErr), last, r.Err())
	}
	return rep
}

// syncChild makes the publisher sync now.
func syncChild(t testing.TB, p *roleProcess[pubReport]) ltx.Pos {
	t.Helper()
	first := p.waitFor("a claim", func(r pubReport) bool { return r.Status.Epoch != 0 })
	if err := p.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	return p.waitFor("sync", func(r pubReport) bool { return r.Syncs > first.Syncs }).Pos
}

// settleChildren waits until the replicas have what the publisher has.
func settleChildren(t testing.TB, p *roleProcess[pubReport], subs ...*roleProcess[subReport]) ltx.Pos {
	t.Helper()
	pos := syncChild(t, p)
	for _, s := range subs {
		s.waitFor(fmt.Sprint("position ", pos), func(r subReport) bool {
			return r.Status.TXID == pos.TXID && r.Status.Checksum == pos.PostApplyChecksum
		})
	}
	return pos
}
