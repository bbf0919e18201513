package embedded

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	watchEvery    = time.Second
	reviveAtFree  = 32 << 20 // bytes free before a restart is tried
	reviveWait    = time.Second
	reviveWaitMax = time.Minute
)

// watch restarts the server when JetStream stopped taking messages for good, as
// it does when a write finds the disk full: one write error is kept by the
// stream until a restart, even when there is room again. Publishers meanwhile
// see timeouts or "no responders" and keep what they have; connections
// reconnect by themselves. It ends with ctx.
func (s *Server) watch(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	w := watcher{s: s, wait: reviveWait}
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			w.check(now)
		}
	}
}

// watcher is the state of one watch.
type watcher struct {
	s    *Server
	sick bool
	wait time.Duration // until the next restart; doubles while they do not help
	next time.Time     // no restart before
}

func (w *watcher) check(now time.Time) {
	fault := w.s.fault()
	if fault == nil {
		if w.sick {
			w.s.cfg.Logger.Info("embedded jetstream takes messages again", "dir", w.s.cfg.Dir)
		}
		if now.After(w.next.Add(reviveWaitMax)) {
			w.wait = reviveWait
		}
		w.sick = false
		return
	}
	free, err := freeBytes(w.s.cfg.Dir)
	if !w.sick {
		w.s.cfg.Logger.Error("embedded jetstream takes no messages", "dir", w.s.cfg.Dir, "free_bytes", free, "err", fault)
	}
	w.sick = true
	if err != nil || free < reviveAtFree || now.Before(w.next) {
		return
	}
	w.next = now.Add(w.wait)
	w.wait = min(2*w.wait, reviveWaitMax)
	if err := w.s.relaunch(); err != nil {
		w.s.cfg.Logger.Error("embedded nats-server does not come back", "dir", w.s.cfg.Dir, "err", err)
	}
}

// fault is why JetStream takes no messages; nil when it does. Other troubles,
// which a restart does not mend, are not its business.
func (s *Server) fault() error {
	srv := s.running()
	if srv == nil {
		return ErrNotRunning
	}
	if !srv.JetStreamEnabled() {
		return errors.New("jetstream is switched off")
	}
	for _, e := range srv.Healthz(&server.HealthzOptions{Details: true}).Errors {
		if strings.Contains(e.Error, "write error") {
			return errors.New(e.Error)
		}
	}
	return nil
}

// relaunch replaces the server under the lock that is held already. The
// listener keeps its port.
func (s *Server) relaunch() error {
	if old := s.running(); old != nil {
		stopServer(old)
		s.setRunning(nil)
	}
	srv, err := s.launch()
	if err != nil {
		return err
	}
	s.setRunning(srv)
	return nil
}

func (s *Server) setRunning(srv *server.Server) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.srv = srv
}
