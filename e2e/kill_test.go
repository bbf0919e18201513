package e2e

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/app"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
	"github.com/nats-io/nats.go/jetstream"
)

// stage is a replication in four processes: application, publisher, server,
// subscriber; and a reader of the replica.
type stage struct {
	t    *testing.T
	f    files
	srv  *testenv.Server
	js   jetstream.JetStream
	pub  *roleProcess[pubReport]
	sub  *roleProcess[subReport]
	rand *rand.Rand
}

func newStage(t *testing.T) *stage {
	s := &stage{t: t, f: paths(t), srv: testenv.NodeProcess(t), rand: random(seed(t))}
	s.js = s.srv.JetStream()
	_, _ = testenv.Bank(t, s.f.primary, sqlconn.WAL(), 1)
	s.pub = runRole[pubReport](t, "e2e-publisher", roleSpec{URL: s.srv.URL(), DB: appDB, Path: s.f.primary})
	s.sub = runRole[subReport](t, "e2e-subscriber", roleSpec{URL: s.srv.URL(), DB: appDB, Path: s.f.replica})
	settleChildren(t, s.pub, s.sub)
	return s
}

// round lets the application write, does harm at a random moment, and compares
// when the application is done.
func (s *stage) round(harm func()) {
	s.t.Helper()
	checkpoint := []string{"", "", "PASSIVE", "TRUNCATE", "RESTART"}[s.rand.IntN(5)]
	cfg := app.Config{Path: s.f.primary, DB: sqlconn.WAL(), Seed: s.rand.Uint64(), Rate: 400, Limit: 120, NoteBytes: 300}
	if checkpoint != "" {
		cfg.Checkpoint, cfg.CheckpointEvery = checkpoint, 40
	}
	a := testenv.App(s.t, cfg)
	if _, err := a.WaitFor(s.t.Context(), 1); err != nil {
		s.t.Fatal(err)
	}
	<-time.After(time.Duration(s.rand.IntN(250)) * time.Millisecond) // the random moment
	harm()
	if _, err := a.Result(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	settleChildren(s.t, s.pub, s.sub)
	testenv.Compare(s.t, s.f.primary, s.f.replica)
	last, err := s.sub.reports.Last()
	if err != nil || last.Status.Reseeds != 0 || last.Status.Bases != 0 {
		s.t.Fatalf("replica was seeded anew: %+v %v", last.Status, err)
	}
}

// killing runs rounds of harm under a reader that judges what it sees.
func (s *stage) killing(harm func()) {
	s.t.Helper()
	reader := watch(s.t, s.f.replica)
	for range killRounds {
		s.round(harm)
	}
	rep := testenv.Finish(s.t, reader)
	s.t.Logf("%d rounds, reader: %d checks of %d states", killRounds, rep.Checks, rep.States)
	expectFull(s.t, s.js, appDB, 1)
}

func TestKillPublisherAtAnyMoment(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.killing(s.pub.killAndRestart)
}

func TestKillSubscriberAtAnyMoment(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.killing(s.sub.killAndRestart)
}

func TestKillServerAtAnyMoment(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.killing(s.killServer)
}

func (s *stage) killServer() {
	s.srv.Kill()
	s.srv.Restart()
}

// TestKillAnythingAtAnyMoment kills two of the three, one right after the other.
func TestKillAnythingAtAnyMoment(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	harms := []func(){s.pub.killAndRestart, s.sub.killAndRestart, s.killServer}
	s.killing(func() {
		for _, i := range s.rand.Perm(len(harms))[:2] {
			harms[i]()
		}
	})
}
