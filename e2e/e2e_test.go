package e2e

import (
	"context"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/publisher"
	"github.com/ltxstream/ltxstream/subscriber"
	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
	"github.com/ltxstream/ltxstream/wire"
	"github.com/nats-io/nats.go/jetstream"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const patience = 30 * time.Second

// role is a publisher or subscriber that runs until it is stopped.
type role struct {
	stop func() error
}

func start(t testing.TB, run func(context.Context) error) *role {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var err error
	wg.Go(func() { err = run(ctx) })
	r := &role{stop: sync.OnceValue(func() error {
		cancel()
		wg.Wait()
		return err
	})}
	t.Cleanup(func() { _ = r.stop() })
	return r
}

func (r *role) mustStop(t testing.TB) {
	t.Helper()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
}

// publish starts a publisher of the database at path.
func publish(t testing.TB, js jetstream.JetStream, db wire.DB, path string, edit ...func(*publisher.Config)) (*publisher.Publisher, *role) {
	t.Helper()
	cfg := publisher.Config{JS: js, DB: db, Path: path}
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
func replicate(t testing.TB, js jetstream.JetStream, db wire.DB, path string) (*subscriber.Subscriber, *role) {
	t.Helper()
	s, err := subscriber.New(subscriber.Config{JS: js, DB: db, Path: path})
	if err != nil {
		t.Fatal(err)
	}
	return s, start(t, s.Run)
}

// settle waits until the replica has all that was committed before the call.
func settle(t testing.TB, p *publisher.Publisher, subs ...*subscriber.Subscriber) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	pos, err := p.Sync(ctx)
	if err != nil {
		t.Fatalf("%v; status %+v", err, p.Status())
	}
	for _, s := range subs {
		at, err := s.WaitFor(ctx, pos.TXID)
		if err != nil {
			t.Fatalf("%v; status %+v", err, s.Status())
		}
		if at.TXID == pos.TXID && at != pos {
			t.Fatalf("replica is at %s, publisher at %s", at, pos)
		}
	}
}

func TestReplicatesBankTransfers(t *testing.T) {
	srv := testenv.Node(t)
	dir := t.TempDir()
	primary, copy1, copy2 := filepath.Join(dir, "app.db"), filepath.Join(dir, "one.db"), filepath.Join(dir, "two.db")
	_, teller := testenv.Bank(t, primary, sqlconn.WAL(), 1)
	p, pr := publish(t, srv.JetStream(), "app", primary)
	s1, r1 := replicate(t, srv.JetStream(), "app", copy1)
	for range 500 {
		if _, err := teller.Transfer(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	settle(t, p, s1)
	s2, r2 := replicate(t, srv.JetStream(), "app", copy2)
	for range 500 {
		if _, err := teller.Transfer(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	settle(t, p, s1, s2)
	testenv.Compare(t, primary, copy1, copy2)
	r1.mustStop(t)
	r2.mustStop(t)
	pr.mustStop(t)
}
