package e2e

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/publisher"
	"github.com/ltxstream/ltxstream/subscriber"
	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/bank"
	"github.com/ltxstream/ltxstream/testenv/foreign"
	"github.com/ltxstream/ltxstream/testenv/oracle"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
	"github.com/ltxstream/ltxstream/wire"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/superfly/ltx"
)

func TestMain(m *testing.M) { testenv.Main(m, jobs()) }

const (
	patience = time.Minute
	appDB    = wire.DB("app") // the database of most tests
)

// seed returns the seed of this run: LTX_SEED, or a random one, printed.
func seed(t testing.TB) uint64 {
	t.Helper()
	s := rand.Uint64()
	if v, err := strconv.ParseUint(os.Getenv("LTX_SEED"), 10, 64); err == nil {
		s = v
	}
	t.Logf("LTX_SEED=%d", s)
	return s
}

func random(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

func logger(t testing.TB, role string) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil)).With("role", role)
}

// role is a publisher or subscriber that runs until it is stopped.
type role struct {
	stop func() error
	done chan struct{}
}

func start(t testing.TB, run func(context.Context) error) *role {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &role{done: make(chan struct{})}
	var err error
	go func() {
		defer close(r.done)
		err = run(ctx)
	}()
	r.stop = sync.OnceValue(func() error {
		cancel()
		<-r.done
		return err
	})
	t.Cleanup(func() { _ = r.stop() })
	return r
}

func (r *role) mustStop(t testing.TB) {
	t.Helper()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
}

// ended returns how the role ended by itself.
func (r *role) ended(t testing.TB) error {
	t.Helper()
	select {
	case <-r.done:
		return r.stop()
	case <-time.After(patience):
		t.Fatal("the role should have ended by itself")
		return nil
	}
}

// publish starts a publisher of the database at path.
func publish(t testing.TB, js jetstream.JetStream, db wire.DB, path string, edit ...func(*publisher.Config)) (*publisher.Publisher, *role) {
	t.Helper()
	cfg := publisher.Config{JS: js, DB: db, Path: path, Logger: logger(t, "pub")}
	for _, e := range edit {
		e(&cfg)
	}
	p, err := publisher.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p, start(t, p.Run)
}

// replicate starts a subscriber that keeps a replica at path.
func replicate(t testing.TB, js jetstream.JetStream, db wire.DB, path string, edit ...func(*subscriber.Config)) (*subscriber.Subscriber, *role) {
	t.Helper()
	cfg := subscriber.Config{JS: js, DB: db, Path: path, Logger: logger(t, "sub")}
	for _, e := range edit {
		e(&cfg)
	}
	s, err := subscriber.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s, start(t, s.Run)
}

func smallWAL(c *subscriber.Config) { c.SoftWALLimit = 128 << 10 }

// sync returns the position of all that was committed before the call, once it
// is acknowledged.
func syncNow(t testing.TB, p *publisher.Publisher) ltx.Pos {
	t.Helper()
	return syncWithin(t, patience, p)
}

func syncWithin(t testing.TB, limit time.Duration, p *publisher.Publisher) ltx.Pos {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	pos, err := p.Sync(ctx)
	if err != nil {
		t.Fatalf("%v; status %+v", err, p.Status())
	}
	return pos
}

// settle waits until the replicas have exactly what was committed before the
// call. Nothing may be committed meanwhile.
func settle(t testing.TB, p *publisher.Publisher, subs ...*subscriber.Subscriber) ltx.Pos {
	t.Helper()
	return settleWithin(t, patience, p, subs...)
}

// settleWithin is settle for what takes longer.
func settleWithin(t testing.TB, limit time.Duration, p *publisher.Publisher, subs ...*subscriber.Subscriber) ltx.Pos {
	t.Helper()
	pos := syncWithin(t, limit, p)
	for _, s := range subs {
		waitAt(t, limit, s, pos)
	}
	return pos
}

// equalAt compares replicas with their primary, and the checksum of its pages with
// that of the position: it sees a page too many or too few, which readers through
// SQLite cannot tell, for they go by the page count in page 1.
func equalAt(t *testing.T, pos ltx.Pos, primary string, replicas ...string) {
	t.Helper()
	testenv.Compare(t, primary, replicas...)
	s, err := oracle.Open(t.Context(), primary)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, sum, err := s.Pages(t.Context()); err != nil || sum != pos.PostApplyChecksum {
		t.Errorf("the %d pages of %s add up to %s, the position is %s: %v", s.Header.PageCount, primary, sum, pos, err)
	}
}

// settleAtLeast is settle while somebody goes on committing.
func settleAtLeast(t testing.TB, p *publisher.Publisher, s *subscriber.Subscriber) ltx.Pos {
	t.Helper()
	return settleAtLeastWithin(t, patience, p, s)
}

func settleAtLeastWithin(t testing.TB, limit time.Duration, p *publisher.Publisher, s *subscriber.Subscriber) ltx.Pos {
	t.Helper()
	pos := syncWithin(t, limit, p)
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if _, err := s.WaitFor(ctx, pos.TXID); err != nil {
		t.Fatalf("%v; status %+v", err, s.Status())
	}
	return pos
}

// waitAt waits until the replica holds what pos says. Its TXID may be later: a
// full file may repeat that content.
func waitAt(t testing.TB, limit time.Duration, s *subscriber.Subscriber, pos ltx.Pos) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if _, err := s.WaitFor(ctx, pos.TXID); err != nil {
		t.Fatalf("%v; status %+v", err, s.Status())
	}
	testenv.Until(t, limit, "replica at "+pos.String(), func() error {
		if st := s.Status(); st.TXID < pos.TXID || st.Checksum != pos.PostApplyChecksum {
			return fmt.Errorf("replica is at %s %s: %+v", st.TXID, st.Checksum, st)
		}
		return nil
	})
}

// watch starts a reader that judges every state it sees; see testenv.Finish.
func watch(t testing.TB, path string) *foreign.Process {
	t.Helper()
	p := testenv.Foreign(t, foreign.Config{Path: path, DB: sqlconn.Options{Mode: "ro"}, Interval: 2 * time.Millisecond})
	if _, err := p.WaitFor(t.Context(), func(r foreign.Report) bool { return r.Checks > 0 }); err != nil {
		t.Fatal(err)
	}
	return p
}

// transfers makes n transfers and returns the sequence of the last.
func transfers(t testing.TB, teller *bank.Teller, n int) int64 {
	t.Helper()
	var seq int64
	for range n {
		var err error
		if seq, err = teller.Transfer(context.WithoutCancel(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	return seq
}

// census is what the stream holds of a database.
type census struct{ files, full, claims, messages int }

// count reads all headers of a database in the stream.
func count(t testing.TB, js jetstream.JetStream, db wire.DB) (c census) {
	t.Helper()
	for _, m := range history(t, js, db) {
		c.messages++
		if m.subject == db.EpochSubject() {
			c.claims++
			continue
		}
		meta, err := wire.ParseMeta(m.header)
		if err != nil {
			continue
		}
		if meta.Part == meta.Parts {
			c.files++
			if meta.Full {
				c.full++
			}
		}
	}
	return c
}

// message is one of the stream, without its body.
type message struct {
	subject string
	header  nats.Header
	seq     uint64
	stored  time.Time
}

// history yields what the stream holds of a database. A server that is on its
// way back is waited for.
func history(t testing.TB, js jetstream.JetStream, db wire.DB) (all []message) {
	t.Helper()
	testenv.Until(t, patience, "the stream", func() (err error) {
		all, err = readHistory(context.WithoutCancel(t.Context()), js, db)
		return err
	})
	return all
}

func readHistory(ctx context.Context, js jetstream.JetStream, db wire.DB) (all []message, err error) {
	str, err := js.Stream(ctx, wire.DefaultStream)
	if err != nil {
		return nil, err
	}
	c, err := str.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{FilterSubjects: []string{db.Filter()}, HeadersOnly: true})
	if err != nil {
		return nil, err
	}
	if info, err := c.Info(ctx); err != nil || info.NumPending == 0 {
		return nil, err
	}
	it, err := c.Messages(jetstream.PullMaxMessages(1000))
	if err != nil {
		return nil, err
	}
	defer it.Stop()
	for {
		m, err := it.Next(jetstream.NextMaxWait(5 * time.Second))
		if err != nil {
			return nil, err
		}
		md, err := m.Metadata()
		if err != nil {
			return nil, err
		}
		all = append(all, message{m.Subject(), m.Headers(), md.Sequence.Stream, md.Timestamp})
		if md.NumPending == 0 {
			return all, nil
		}
	}
}

// expectFull fails the test unless the stream holds exactly n full files.
func expectFull(t testing.TB, js jetstream.JetStream, db wire.DB, n int) {
	t.Helper()
	if c := count(t, js, db); c.full != n {
		t.Errorf("the stream holds %+v, want %d full", c, n)
	}
}

func expectNoReseed(t testing.TB, subs ...*subscriber.Subscriber) {
	t.Helper()
	for _, s := range subs {
		if st := s.Status(); st.Reseeds != 0 || st.Bases != 0 {
			t.Errorf("replica %s was seeded anew: %+v", st.Path, st)
		}
	}
}

// files are the paths of one test.
type files struct{ dir, primary, replica string }

func paths(t testing.TB) files { return pathsIn(t, t.TempDir()) }

func pathsIn(t testing.TB, dir string) files {
	for _, d := range []string{"p", "r"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return files{dir, filepath.Join(dir, "p", "app.db"), filepath.Join(dir, "r", "app.db")}
}

func TestReplicatesBankTransfers(t *testing.T) {
	t.Parallel()
	srv := testenv.Node(t)
	f := paths(t)
	second := filepath.Join(f.dir, "two.db")
	_, teller := testenv.Bank(t, f.primary, sqlconn.WAL(), 1)
	p, pr := publish(t, srv.JetStream(), appDB, f.primary)
	s1, r1 := replicate(t, srv.JetStream(), appDB, f.replica)
	transfers(t, teller, 300)
	settle(t, p, s1)
	s2, r2 := replicate(t, srv.JetStream(), appDB, second)
	transfers(t, teller, 300)
	equalAt(t, settle(t, p, s1, s2), f.primary, f.replica, second)
	expectNoReseed(t, s1, s2)
	expectFull(t, srv.JetStream(), appDB, 1)
	r1.mustStop(t)
	r2.mustStop(t)
	pr.mustStop(t)
}
