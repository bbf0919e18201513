package e2e

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/publisher"
	"github.com/ltxstream/ltxstream/subscriber"
	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/bank"
	"github.com/ltxstream/ltxstream/testenv/child"
	"github.com/ltxstream/ltxstream/testenv/pace"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
	"github.com/ltxstream/ltxstream/testenv/steps"
	"github.com/ltxstream/ltxstream/wire"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/superfly/ltx"
	"golang.org/x/sys/unix"
)

// TestKillServerAtEachStep kills the embedded server at each place, again and
// again on one history: nothing that was acknowledged is lost or stored twice,
// the chain has no gap, both roles go on by themselves, and there is no full
// file but where the messages were taken away.
func TestKillServerAtEachStep(t *testing.T) {
	for _, p := range places() {
		for first := uint64(0); first < stepSeeds; first += killsInAHistory {
			t.Run(fmt.Sprintf("%s/%d", p.label, first), func(t *testing.T) {
				t.Parallel()
				newSteppedServer(t).killing(p, first)
			})
		}
	}
}

const killsInAHistory = 20

// killing kills the server at p with the seeds from first on, and judges.
func (s *steppedServer) killing(p place, first uint64) {
	s.t.Helper()
	for seed := first; seed < first+killsInAHistory; seed++ {
		s.rand = random(seed)
		s.killAt(p)
		if p.starting && seed%4 != 3 {
			continue // kills in a row
		}
		before := s.pub.Status().LostAcks
		s.boot(nil)
		settle(s.t, s.pub, s.sub)
		if s.pub.Status().LostAcks > before {
			s.lostAcks++
		}
	}
	testenv.Compare(s.t, s.f.primary, s.f.replica)
	s.judge(p)
}

// steppedServer is the product's own server in a process that is watched, and a
// publisher and a subscriber in this one.
type steppedServer struct {
	t      *testing.T
	f      files
	listen string
	rand   *rand.Rand // of the seed

	proc  *child.Process
	watch *steps.Watch
	hit   <-chan steps.Step

	js     jetstream.JetStream // of nobody's
	db     *sql.DB
	teller *bank.Teller
	pub    *publisher.Publisher
	sub    *subscriber.Subscriber
	kills  []kill

	lostAcks int // kills after which the publisher found that an answer was lost
}

// kill is what was acknowledged when the server was killed.
type kill struct {
	acked ltx.TXID
	at    time.Time
}

func newSteppedServer(t *testing.T) *steppedServer {
	s := &steppedServer{t: t, f: pathsIn(t, memory(t)), listen: "127.0.0.1:0"}
	t.Cleanup(s.kill)
	s.boot(nil)
	s.js = s.connect()
	s.db, s.teller = testenv.Bank(t, s.f.primary, sqlconn.WAL(), 1)
	s.pub, _ = publish(t, s.connect(), appDB, s.f.primary)
	s.sub, _ = replicate(t, s.connect(), appDB, s.f.replica)
	settle(t, s.pub, s.sub)
	return s
}

// memory returns a directory in memory, where there is one with room: to a kill
// it is all the same, and no busy disk holds up the syncs.
func memory(t *testing.T) string {
	const shm, room = "/dev/shm", 1 << 30
	var st unix.Statfs_t
	if unix.Statfs(shm, &st) != nil || int64(st.Bavail)*int64(st.Bsize) < room {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(shm, "ltxstream-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func (s *steppedServer) connect() jetstream.JetStream {
	return testenv.JetStream(s.t, testenv.Connect(s.t, "nats://"+s.listen, nats.ReconnectWait(10*time.Millisecond), nats.ReconnectJitter(0, 0)))
}

// boot starts the server, to be stopped where at says, and returns once it runs
// or is stopped.
func (s *steppedServer) boot(at func(steps.Step) bool) {
	s.t.Helper()
	testenv.Until(s.t, patience, "the server to start", func() error {
		return s.tryBoot(at) // whoever dials it meanwhile may have got its port
	})
}

func (s *steppedServer) tryBoot(at func(steps.Step) bool) (err error) {
	s.kill()
	if s.watch, err = steps.New(); errors.Is(err, steps.ErrUnsupported) {
		s.t.Skip(err)
	} else if err != nil {
		s.t.Fatal(err)
	}
	s.hit = s.watch.Stop(at)
	url := make(chan string, 1)
	reports := child.NewReports("", func(_, next string) string { url <- next; return next })
	spec := serverSpec{Dir: filepath.Join(s.f.dir, "nats"), Listen: s.listen, MaxPayload: 64 << 10, Watch: s.watch.Addr()}
	if s.proc, err = child.Start("e2e-server", spec, reports.Line); err != nil {
		s.t.Fatal(err)
	}
	select {
	case at := <-url:
		s.listen = strings.TrimPrefix(at, "nats://")
		return nil
	case <-s.proc.Done():
		err := s.proc.Err()
		if err != nil && strings.Contains(err.Error(), steps.ErrUnsupported.Error()) {
			s.t.Skip(err)
		}
		return fmt.Errorf("server ended: %w", err)
	case step := <-s.hit:
		again := make(chan steps.Step, 1)
		again <- step
		s.hit = again
		return nil
	}
}

// kill ends the server where it is.
func (s *steppedServer) kill() {
	if s.proc == nil {
		return
	}
	if s.pub != nil {
		s.kills = append(s.kills, kill{s.pub.Status().Acked, time.Now()})
	}
	s.proc.Kill()
	s.watch.Close()
	s.proc = nil
}

// killAt leads the server to p and kills it there, under an application that
// goes on.
func (s *steppedServer) killAt(p place) {
	s.t.Helper()
	pass := p.skip + s.rand.IntN(p.upTo+1)
	at := func(step steps.Step) bool {
		if !p.is(step) {
			return false
		}
		pass--
		return pass < 0
	}
	if p.starting {
		s.kill()
		s.boot(at)
	} else {
		s.hit = s.watch.Stop(at)
	}
	step := s.lead(p)
	if p.half {
		s.tear(step)
	}
	s.kill()
	transfers(s.t, s.teller, s.rand.IntN(10))
}

// lead returns when the server is stopped at p.
func (s *steppedServer) lead(p place) steps.Step {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	if p.call == "" {
		s.write(p)
		if err := p.do(ctx, s); err != nil {
			s.t.Fatal(err)
		}
		return steps.Step{}
	}
	defer s.begin(ctx, p)()
	for {
		s.write(p)
		select {
		case step := <-s.hit:
			return step
		case <-ctx.Done():
			s.t.Fatalf("%q was never reached: publisher %+v, replica %+v", p.label, s.pub.Status(), s.sub.Status())
		case <-time.After(3 * time.Millisecond):
		}
	}
}

// begin does what leads to p, until that succeeds or the end of the wait, which
// it returns.
func (s *steppedServer) begin(ctx context.Context, p place) (wait func()) {
	if p.do == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for p.do(ctx, s) != nil && ctx.Err() == nil {
			pace.Sleep(time.Millisecond)
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}

// write commits a few transactions. Where messages are counted, one now and then
// needs several.
func (s *steppedServer) write(p place) {
	s.t.Helper()
	transfers(s.t, s.teller, 1+s.rand.IntN(2))
	if p.upTo > 0 && s.rand.IntN(30) == 0 {
		mustExec(s.t, s.db, "CREATE TABLE IF NOT EXISTS big (id INTEGER PRIMARY KEY, v)",
			fmt.Sprintf("INSERT OR REPLACE INTO big VALUES (1, randomblob(%d))", s.rand.IntN(200<<10)))
	}
}

// tear does the first part of a write.
func (s *steppedServer) tear(step steps.Step) {
	s.t.Helper()
	f, err := os.OpenFile(step.Path, os.O_WRONLY, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(step.Data[:1+s.rand.IntN(len(step.Data)-1)], step.Offset); err != nil {
		s.t.Fatal(err)
	}
}

// judge reads the whole history.
func (s *steppedServer) judge(p place) {
	s.t.Helper()
	c := chain{t: s.t}
	for _, m := range history(s.t, s.js, appDB) {
		if m.subject == appDB.DataSubject() {
			if meta, ends := c.take(m); ends && !p.takes {
				s.storedOnce(m, meta)
			}
		}
	}
	st := s.pub.Status()
	s.t.Logf("killed %d times there, %d in all, %d answers lost; stream: %+v", killsInAHistory, len(s.kills), s.lostAcks, c.census)
	if want := (ltx.Pos{TXID: st.Acked, PostApplyChecksum: st.Checksum}); c.pos != want {
		s.t.Errorf("the stream ends at %s, acknowledged is %s", c.pos, want)
	}
	if !p.takes {
		expectFull(s.t, s.js, appDB, 1)
		expectNoReseed(s.t, s.sub)
	}
	if !p.lostAcks.is(s.lostAcks, killsInAHistory) {
		s.t.Errorf("after %d of %d kills the publisher found that an answer was lost: they were somewhere else", s.lostAcks, killsInAHistory)
	}
}

// storedOnce fails the test when a file that was acknowledged before a kill was
// stored after it.
func (s *steppedServer) storedOnce(m message, meta wire.Meta) {
	s.t.Helper()
	for i, k := range s.kills {
		if meta.Max <= k.acked && m.stored.After(k.at) {
			s.t.Errorf("file %s was acknowledged before kill %d and stored behind it", meta.Max, i)
		}
	}
}

// chain follows the data messages of one database by their headers.
type chain struct {
	t    *testing.T
	pos  ltx.Pos
	last wire.Meta
	census
}

// take fails the test when m does not follow the messages before it. ends says
// that it ends a file.
func (c *chain) take(m message) (meta wire.Meta, ends bool) {
	c.t.Helper()
	meta, err := wire.ParseMeta(m.header)
	if err != nil {
		c.t.Fatalf("message %d: %v", m.seq, err)
	}
	if meta.Part > 1 && (meta.Part != c.last.Part+1 || meta.PostPos() != c.last.PostPos()) {
		c.t.Errorf("message %d is part %d of %s, behind part %d of %s", m.seq, meta.Part, meta.Max, c.last.Part, c.last.Max)
	}
	c.messages++
	if c.last = meta; meta.Part < meta.Parts {
		return meta, false
	}
	if !meta.Full && meta.PrePos() != c.pos {
		c.t.Errorf("message %d follows %s, the chain is at %s", m.seq, meta.PrePos(), c.pos)
	}
	if c.files++; meta.Full {
		c.full++
	}
	c.pos = meta.PostPos()
	return meta, true
}
