package publisher

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/bank"
	"github.com/ltxstream/ltxstream/testenv/oracle"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
	"github.com/ltxstream/ltxstream/wire"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/superfly/ltx"
)

const patience = time.Minute

// world is an application with a bank, and a NATS server.
type world struct {
	t      *testing.T
	node   *testenv.Server
	js     jetstream.JetStream // for looking
	path   string
	db     wire.DB
	app    *sql.DB
	teller *bank.Teller
}

func newWorld(t *testing.T, edit ...func(*testenv.Config)) *world {
	t.Helper()
	return newWorldOn(t, testenv.Node(t, edit...))
}

func newWorldOn(t *testing.T, node *testenv.Server) *world {
	t.Helper()
	w := &world{t: t, node: node, path: filepath.Join(t.TempDir(), "app.db"), db: "app"}
	w.app, w.teller = testenv.Bank(t, w.path, sqlconn.WAL(), 1)
	if node != nil {
		w.js = node.JetStream()
	}
	return w
}

// restart starts the server again on its port. While it was down, a client that
// dials it may have got that very port for its own end.
func (w *world) restart() {
	w.t.Helper()
	testenv.Until(w.t, patience, "the server to be back", func() error { return w.node.Server.Restart(w.t.Context()) })
}

// transfer commits n transactions.
func (w *world) transfer(n int) {
	w.t.Helper()
	for range n {
		if _, err := w.teller.Transfer(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
	}
}

// blob commits one transaction of about n bytes that do not compress.
func (w *world) blob(n int) {
	w.t.Helper()
	w.exec("CREATE TABLE IF NOT EXISTS blob (v)")
	w.exec("INSERT INTO blob VALUES (randomblob(?))", n)
}

func (w *world) exec(query string, args ...any) {
	w.t.Helper()
	if _, err := w.app.ExecContext(w.t.Context(), query, args...); err != nil {
		w.t.Fatalf("%s: %v", query, err)
	}
}

func (w *world) config() Config {
	w.t.Helper()
	return Config{JS: testenv.JetStream(w.t, w.connect()), DB: w.db, Path: w.path}
}

func (w *world) connect() *nats.Conn {
	return testenv.Connect(w.t, w.node.URL(), nats.ReconnectWait(20*time.Millisecond))
}

// running is a publisher in this process.
type running struct {
	*Publisher
	t      *testing.T
	cancel context.CancelFunc
	ended  chan error
	log    *lines
}

// lines is a log that a test can read.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// start runs a publisher until stop, or the end of the test.
func start(t *testing.T, cfg Config, edit ...func(*Publisher)) *running {
	t.Helper()
	log := &lines{}
	cfg.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range edit {
		e(p)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Publisher: p, t: t, cancel: cancel, ended: make(chan error, 1), log: log}
	var wg sync.WaitGroup
	wg.Go(func() { r.ended <- p.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		if t.Failed() {
			t.Logf("log of publisher on %s:\n%s", cfg.Path, log)
		}
	})
	return r
}

// end waits for Run to return.
func (r *running) end() error {
	r.t.Helper()
	select {
	case err := <-r.ended:
		return err
	case <-time.After(patience):
		r.t.Fatalf("publisher did not end; status %+v", r.Status())
		return nil
	}
}

func (r *running) stop() error {
	r.t.Helper()
	r.cancel()
	return r.end()
}

func (r *running) mustStop() {
	r.t.Helper()
	if err := r.stop(); err != nil {
		r.t.Fatalf("stop: %v", err)
	}
}

func (r *running) mustEnd(want error) error {
	r.t.Helper()
	err := r.end()
	if !errors.Is(err, want) {
		r.t.Fatalf("Run returned %v, want %v", err, want)
	}
	return err
}

// sync waits until everything committed so far is acknowledged.
func (r *running) sync() ltx.Pos {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	pos, err := r.Sync(ctx)
	if err != nil {
		r.t.Fatalf("sync: %v; status %+v", err, r.Status())
	}
	return pos
}

// until waits for a status.
func (r *running) until(what string, cond func(Status) bool) {
	r.t.Helper()
	testenv.Until(r.t, patience, what, func() error {
		if s := r.Status(); !cond(s) {
			return fmt.Errorf("status %+v", s)
		}
		return nil
	})
}

// check reads the whole stream and compares what it makes with the database.
func (w *world) check() *chain {
	w.t.Helper()
	c := w.read()
	w.equal(c)
	return c
}

// connected waits for the test's own connection, which the server's restart cut.
func (w *world) connected() {
	w.t.Helper()
	testenv.Until(w.t, patience, "the test's connection", func() error {
		_, err := w.js.AccountInfo(w.t.Context())
		return err
	})
}

// read reads the whole stream.
func (w *world) read() *chain {
	w.t.Helper()
	w.connected()
	var c *chain
	testenv.Until(w.t, patience, "the stream to be read", func() error {
		c = newChain(w.db)
		err := c.readAll(w.t.Context(), w.js, wire.DefaultStream)
		if passes := errors.Is(err, nats.ErrNoResponders) || errors.Is(err, errDropped) || errors.Is(err, errLost) || errors.Is(err, jetstream.ErrConsumerNotFound); err != nil && !passes {
			w.t.Fatal(err)
		}
		return err
	})
	return c
}

// equal compares a chain with the database.
func (w *world) equal(c *chain) {
	w.t.Helper()
	if err := w.compare(c); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) compare(c *chain) error {
	w.t.Helper()
	s, err := oracle.Open(w.t.Context(), w.path)
	if err != nil {
		w.t.Fatal(err)
	}
	defer s.Close()
	image, err := s.Image(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	if !bytes.Equal(image, c.image) {
		return fmt.Errorf("stream makes %d bytes up to %s, the database has %d others", len(c.image), c.pos, len(image))
	}
	return nil
}
