package subscriber

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/superfly/ltx"
	"go.uber.org/goleak"

	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/internal/stream/streamtest"
	"github.com/ltxstream/ltxstream/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// primary is a SQLite database whose states are published as LTX files.
type primary struct {
	*streamtest.Chain
	t    testing.TB
	js   jetstream.JetStream
	conn *sql.Conn
	n    int
}

func newPrimary(t testing.TB, js jetstream.JetStream) *primary {
	t.Helper()
	if _, err := stream.Ensure(t.Context(), js, stream.Config{}); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(t.TempDir(), "primary.db"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); db.Close() })
	p := &primary{Chain: streamtest.NewChain("app", 1), t: t, js: js, conn: conn}
	p.PageSize = 4096
	p.exec("PRAGMA journal_mode=WAL")
	p.exec("PRAGMA synchronous=OFF")
	p.exec("CREATE TABLE t(n INTEGER PRIMARY KEY, v BLOB)")
	return p
}

func (p *primary) exec(stmt string, args ...any) {
	p.t.Helper()
	if _, err := p.conn.ExecContext(context.Background(), stmt, args...); err != nil {
		p.t.Fatalf("%s: %v", stmt, err)
	}
}

// insert commits some rows.
func (p *primary) insert() {
	p.n++
	p.exec("INSERT INTO t(v) VALUES (?), (randomblob(2000))", fmt.Sprint("row ", p.n))
}

// file makes the LTX file from the last state to this one.
func (p *primary) file(full bool) streamtest.File {
	p.t.Helper()
	full = full || p.Pos.IsZero()
	image, changed := imageOf(p.t, p.conn), map[uint32][]byte{}
	for i := 0; i < len(image); i += int(p.PageSize) {
		page, n := image[i:i+int(p.PageSize)], i/int(p.PageSize)
		if full || n >= len(p.Pages) || !bytes.Equal(p.Pages[n], page) {
			changed[uint32(n+1)] = page
		}
	}
	return p.File(p.t, changed, full)
}

// commit inserts, and publishes the change.
func (p *primary) commit() ltx.TXID {
	p.t.Helper()
	p.insert()
	p.Publish(p.t, p.js, p.file(false), 3000)
	return p.Pos.TXID
}

func (p *primary) publishFull() ltx.TXID {
	p.t.Helper()
	p.Publish(p.t, p.js, p.file(true), 0)
	return p.Pos.TXID
}

func imageOf(t testing.TB, c *sql.Conn) (b []byte) {
	t.Helper()
	err := c.Raw(func(dc any) (err error) {
		b, err = dc.(*sqlite3.SQLiteConn).Serialize("main")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// same compares what a plain reader of path sees with the primary.
func (p *primary) same(path string) {
	p.t.Helper()
	db, err := sql.Open("sqlite3", "file:"+path+"?mode=rw&_busy_timeout=0")
	if err != nil {
		p.t.Fatal(err)
	}
	defer db.Close()
	conn, err := db.Conn(context.Background())
	if err != nil {
		p.t.Fatal(err)
	}
	defer conn.Close()
	if got, want := imageOf(p.t, conn), imageOf(p.t, p.conn); !bytes.Equal(got, want) {
		p.t.Fatalf("replica differs from the primary: %d and %d bytes", len(got), len(want))
	}
	var ok string
	if err := conn.QueryRowContext(context.Background(), "PRAGMA integrity_check").Scan(&ok); err != nil || ok != "ok" {
		p.t.Fatalf("integrity_check: %s, %v", ok, err)
	}
}

// running is a subscriber whose Run runs.
type running struct {
	*Subscriber
	t    testing.TB
	stop context.CancelFunc
	done chan error
}

func run(t testing.TB, js jetstream.JetStream, path string, edit func(*Config)) *running {
	t.Helper()
	cfg := Config{JS: js, DB: "app", Path: path, Logger: slog.New(slog.DiscardHandler)}
	if edit != nil {
		edit(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Subscriber: s, t: t, stop: cancel, done: make(chan error, 1)}
	go func() { r.done <- s.Run(ctx) }()
	t.Cleanup(func() { cancel(); r.end() })
	return r
}

// end stops it and returns what Run said.
func (r *running) end() error {
	r.stop()
	select {
	case err, ok := <-r.done:
		if ok {
			close(r.done)
		}
		return err
	case <-time.After(time.Minute):
		r.t.Error("Run does not end")
		return nil
	}
}

func (r *running) wait(txid ltx.TXID) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if pos, err := r.WaitFor(ctx, txid); err != nil || pos.TXID < txid {
		b, _ := json.Marshal(r.Status())
		r.t.Fatalf("wait for %s: %s, %v\n%s", txid, pos, err, b)
	}
}

func (r *running) state(want State) {
	r.t.Helper()
	streamtest.Eventually(r.t, "state "+string(want), func() bool { return r.Status().State == want })
}

func setup(t *testing.T) (jetstream.JetStream, *primary, string) {
	t.Helper()
	js := streamtest.Connect(t, streamtest.Server(t, nil))
	return js, newPrimary(t, js), filepath.Join(t.TempDir(), "replica.db")
}

func TestFollowsAndResumes(t *testing.T) {
	t.Parallel()
	js, p, path := setup(t)
	p.Claim(t, js)
	p.commit()
	r := run(t, js, path, nil)
	for range 20 {
		r.wait(p.commit())
	}
	p.same(path)
	streamtest.Eventually(t, "caught up", func() bool { return r.Status().LagFiles == 0 && r.Status().Files == 21 })
	st := r.Status()
	if st.State != StateLive || st.TXID != p.Pos.TXID || st.Checksum != p.Pos.PostApplyChecksum || st.HeadTXID != st.TXID ||
		st.Lag != 0 || st.Files != 21 || st.Error != "" || !st.Connected || st.Seq == 0 {
		t.Fatalf("%+v", st)
	}
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.WaitFor(t.Context(), st.TXID+1); !errors.Is(err, ErrStopped) {
		t.Fatalf("wait after the end: %v", err)
	}
	for range 5 {
		p.commit()
	}
	again := run(t, js, path, nil)
	again.wait(p.commit())
	p.same(path)
	streamtest.Eventually(t, "counted", func() bool { return again.Status().Files >= 6 }) // a moment after it is visible
	if st := again.Status(); st.Files != 6 || st.Reseeds != 0 {
		t.Fatalf("resumed with %d files, %d reseeds", st.Files, st.Reseeds)
	}
}

func TestTwoReplicasOneStream(t *testing.T) {
	t.Parallel()
	js, p, path := setup(t)
	p.commit()
	a, b := run(t, js, path, nil), run(t, js, path+"2", nil)
	for range 10 {
		p.commit()
	}
	a.wait(p.Pos.TXID)
	b.wait(p.Pos.TXID)
	p.same(path)
	p.same(path + "2")
}

func TestWaitsForStreamAndBase(t *testing.T) {
	t.Parallel()
	js := streamtest.Connect(t, streamtest.Server(t, nil))
	path := filepath.Join(t.TempDir(), "replica.db")
	r := run(t, js, path, nil)
	streamtest.Eventually(t, "it says what it waits for", func() bool { return r.Status().Error != "" })
	p := newPrimary(t, js)
	r.state(StateWaiting)
	r.wait(p.commit())
	r.wait(p.commit())
	p.same(path)
}

func TestSecondSubscriberIsRefused(t *testing.T) {
	t.Parallel()
	js, p, path := setup(t)
	r := run(t, js, path, nil)
	r.wait(p.commit())
	for name, edit := range map[string]func(*Config){
		"same state directory":  nil,
		"other state directory": func(c *Config) { c.StateDir = t.TempDir() },
	} {
		second := run(t, js, path, edit)
		select {
		case err := <-second.done:
			if !errors.Is(err, ErrLocked) {
				t.Fatalf("%s: %v", name, err)
			}
			close(second.done)
		case <-time.After(time.Minute):
			t.Fatalf("%s: still running", name)
		}
	}
	r.wait(p.commit())
}

func TestGapIsHealedByANewerFullFile(t *testing.T) {
	t.Parallel()
	js, p, path := setup(t)
	r := run(t, js, path, nil)
	r.wait(p.commit())
	p.insert()
	p.file(false) // lost
	p.commit()
	r.state(StateBroken)
	if st := r.Status(); st.TXID != 1 || st.Error == "" || st.LagFiles == 0 || st.Lag == 0 {
		streamtest.Eventually(t, "lag", func() bool { st := r.Status(); return st.LagFiles == 2 && st.Lag > 0 })
	}
	r.wait(p.publishFull())
	p.same(path)
	r.wait(p.commit())
	p.same(path)
	if st := r.Status(); st.State != StateLive {
		t.Fatalf("%+v", st)
	}
}

// TestErrorsBackOff: what is tried again and again without success is tried ever
// more seldom, also where each try begins with a search that succeeds.
func TestErrorsBackOff(t *testing.T) {
	t.Parallel()
	js, p, path := setup(t)
	const damaged = 8
	for range damaged {
		p.insert()
		m := p.Messages(p.file(true), 1<<20)[0]
		m.Data[len(m.Data)/2] ^= 1
		p.Base = p.Inject(t, js, m)
		p.commit()
	}
	began := time.Now()
	r := run(t, js, path, nil)
	streamtest.Eventually(t, "all to be tried", func() bool { return r.Status().Skipped >= damaged })
	if took := time.Since(began); took < time.Second {
		t.Errorf("%d tries in %v", damaged, took)
	}
	p.publishFull()
	r.wait(p.Pos.TXID)
	p.same(path)
}

func TestForkIsReseededInPlace(t *testing.T) {
	t.Parallel()
	js, p, path := setup(t)
	p.Claim(t, js)
	p.commit()
	r := run(t, js, path, nil)
	r.wait(p.commit())
	// Another publisher, another history: TXID 1 again, under a newer claim.
	other := newPrimary(t, js)
	other.LastSeq, other.Epoch, other.Writer = p.LastSeq, 2, "writer-2"
	other.exec("CREATE TABLE other(x)")
	other.Claim(t, js)
	other.commit()
	other.commit()
	streamtest.Eventually(t, "the other history", func() bool { return r.Status().Checksum == other.Pos.PostApplyChecksum })
	other.same(path)
	r.wait(other.commit())
	if st := r.Status(); st.Reseeds != 1 {
		t.Fatalf("%d reseeds", st.Reseeds)
	}
}

func TestStreamDeletedAndRecreated(t *testing.T) {
	t.Parallel()
	js, p, path := setup(t)
	r := run(t, js, path, nil)
	p.commit()
	r.wait(p.commit())
	if err := js.DeleteStream(t.Context(), "LTX"); err != nil {
		t.Fatal(err)
	}
	streamtest.Eventually(t, "it says so", func() bool { return r.Status().Error != "" })
	if _, err := stream.Ensure(t.Context(), js, stream.Config{}); err != nil {
		t.Fatal(err)
	}
	p.LastSeq, p.Base = 0, 0
	p.insert()
	r.wait(p.publishFull())
	r.wait(p.commit())
	p.same(path)
}

func TestServerRestart(t *testing.T) {
	t.Parallel()
	opts := &server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoLog: true, NoSigs: true}
	srv := streamtest.Start(t, opts)
	js := streamtest.Connect(t, srv)
	p, path := newPrimary(t, js), filepath.Join(t.TempDir(), "replica.db")
	r := run(t, js, path, nil)
	r.wait(p.commit())
	port := srv.Addr().String()
	streamtest.Stop(srv)
	streamtest.Eventually(t, "disconnected", func() bool { return !r.Status().Connected })
	again := *opts
	if _, err := fmt.Sscanf(port, "127.0.0.1:%d", &again.Port); err != nil {
		t.Fatal(err)
	}
	srv = streamtest.Start(t, &again)
	defer streamtest.Stop(srv)
	streamtest.Eventually(t, "reconnect", js.Conn().IsConnected)
	r.wait(p.commit())
	p.same(path)
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
}

// archive is a Bootstrapper with one file.
type archive struct {
	file  streamtest.File
	asked chan ltx.Pos
}

func (a *archive) Base(_ context.Context, _ wire.DB, after ltx.Pos) (*Base, error) {
	a.asked <- after
	if a.file.Data == nil {
		return nil, fmt.Errorf("archive: %w", ErrNoBase)
	}
	return &Base{File: io.NewSectionReader(bytes.NewReader(a.file.Data), 0, int64(len(a.file.Data))), Full: true, Closer: io.NopCloser(nil)}, nil
}

func TestBootstrapper(t *testing.T) {
	t.Parallel()
	js, p, path := setup(t)
	p.insert()
	base := p.file(true) // TXID 1 is in the archive only
	p.commit()
	a := &archive{file: base, asked: make(chan ltx.Pos, 100)}
	r := run(t, js, path, func(c *Config) { c.Bootstrapper = a })
	r.wait(p.commit())
	p.same(path)
	if after := <-a.asked; !after.IsZero() {
		t.Fatalf("asked for what follows %s", after)
	}
	if st := r.Status(); st.Bases != 1 {
		t.Fatalf("%+v", st)
	}
	p.insert()
	a.file = p.file(true) // the next TXID too
	p.commit()
	r.wait(p.Pos.TXID)
	p.same(path)
	if after := <-a.asked; after.TXID != 3 {
		t.Fatalf("asked for what follows %s", after)
	}
}

// strange is a Bootstrapper that has changes of another history, whose first file
// begins before the replica's position, so that nothing tells before they are
// applied; and a whole database for who has none.
type strange struct {
	changes, whole []byte
}

func (s *strange) Base(_ context.Context, _ wire.DB, after ltx.Pos) (*Base, error) {
	data := s.changes
	if after.IsZero() {
		data = s.whole
	}
	return &Base{File: io.NewSectionReader(bytes.NewReader(data), 0, int64(len(data))), Full: after.IsZero(), Closer: io.NopCloser(nil)}, nil
}

// TestBaseOfAnotherHistory: when changes turn out not to belong to the replica, a
// whole database is asked for, not the same again.
func TestBaseOfAnotherHistory(t *testing.T) {
	t.Parallel()
	js, p, path := setup(t)
	for range 3 {
		p.commit()
	}
	first := run(t, js, path, nil)
	first.wait(p.Pos.TXID)
	if err := first.end(); err != nil {
		t.Fatal(err)
	}
	p.insert()
	missing := p.file(true) // TXID 4 is not in the stream
	p.commit()
	other := ltx.Header{Version: ltx.Version, PageSize: p.PageSize, Commit: uint32(len(p.Pages)), MinTXID: 3, MaxTXID: 4, Timestamp: 1_800_000_000_000, PreApplyChecksum: ltx.ChecksumFlag | 7}
	from := &strange{
		changes: streamtest.Encode(t, other, map[uint32][]byte{2: bytes.Repeat([]byte("x"), int(p.PageSize))}, ltx.ChecksumFlag|9),
		whole:   missing.Data,
	}
	r := run(t, js, path, func(c *Config) { c.Bootstrapper = from })
	r.wait(p.Pos.TXID)
	p.same(path)
}

func TestLostReplicaIsFoundByChecksum(t *testing.T) {
	t.Parallel()
	js, p, path := setup(t)
	r := run(t, js, path, nil)
	for range 5 {
		p.commit()
	}
	r.wait(p.Pos.TXID)
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	dir := r.cfg.StateDir
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	p.commit()
	again := run(t, js, path, nil)
	again.wait(p.Pos.TXID)
	p.same(path)
	if err := again.end(); err != nil { // what was applied is visible before it is counted
		t.Fatal(err)
	}
	if st := again.Status(); st.Files != 1 {
		t.Fatalf("%d files applied, want the one that was missing", st.Files)
	}
}

func TestReplicaWrittenToIsReseeded(t *testing.T) {
	t.Parallel()
	js, p, path := setup(t)
	r := run(t, js, path, nil)
	p.commit()
	r.wait(p.commit())
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite3", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("INSERT INTO t(v) VALUES ('stray')"); err != nil {
		t.Fatal(err)
	}
	db.Close()
	again := run(t, js, path, nil)
	again.wait(p.commit())
	p.same(path)
}

func TestPermissionEndsRun(t *testing.T) {
	t.Parallel()
	srv := streamtest.Server(t, func(o *server.Options) {
		o.Users = []*server.User{
			{Username: "admin", Password: "p"},
			{Username: "sub", Password: "p", Permissions: &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"$JS.API.STREAM.INFO.>"}}}},
		}
	})
	newPrimary(t, streamtest.Connect(t, srv, nats.UserInfo("admin", "p")))
	r := run(t, streamtest.Connect(t, srv, nats.UserInfo("sub", "p")), filepath.Join(t.TempDir(), "r.db"), nil)
	if err := <-r.done; !errors.Is(err, stream.ErrPermission) {
		t.Fatalf("got %v", err)
	}
	close(r.done)
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	js, p, path := setup(t)
	reg := prometheus.NewPedanticRegistry()
	m := NewMetrics(reg)
	a := run(t, js, path, func(c *Config) { c.Metrics = m })
	b := run(t, js, path+"2", func(c *Config) { c.Metrics = m })
	p.commit()
	p.Inject(t, js, &nats.Msg{Subject: "ltx.app.0", Data: []byte("x")})
	p.commit()
	a.wait(2)
	b.wait(2)
	want := map[string]float64{"ltx_sub_apply_seconds": 4, "ltx_sub_files_total": 4, "ltx_sub_txid": 4, "ltx_sub_up": 2}
	streamtest.Eventually(t, "the metrics of four files", func() bool { // they come right after the position
		got := gathered(t, reg)
		for name, v := range want {
			if got[name] != v {
				return false
			}
		}
		return got["ltx_sub_errors_total"] >= 2
	})
	if got := gathered(t, reg); got["ltx_sub_files_total"] != 4 || got["ltx_sub_apply_seconds"] != 4 {
		t.Errorf("files were counted twice: %v", got)
	}
}

// gathered sums up what is measured, by name.
func gathered(t *testing.T, reg prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			got[f.GetName()] += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return got
}

func TestConfigFaultsAreReportedAtOnce(t *testing.T) {
	t.Parallel()
	_, err := New(Config{DB: "a.b"})
	for _, want := range []string{"JetStream", "a.b", "path"} {
		if err == nil || !bytes.Contains([]byte(err.Error()), []byte(want)) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}
