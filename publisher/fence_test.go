package publisher

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/bank"
	"github.com/ltxstream/ltxstream/testenv/faults"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
	"github.com/ltxstream/ltxstream/wire"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/superfly/ltx"
)

// twin copies the database, without the state directory, as another machine
// would hold it.
func (w *world) twin() *world {
	w.t.Helper()
	testenv.Until(w.t, patience, "a checkpoint", func() error { // it may meet one of the publisher's
		r, err := sqlconn.Checkpoint(w.t.Context(), w.app, "TRUNCATE")
		if err == nil && r.Busy {
			err = errors.New("busy")
		}
		return err
	})
	o := *w
	o.path = filepath.Join(w.t.TempDir(), "app.db")
	copyFile(w.t, w.path, o.path)
	o.app = testenv.OpenDB(w.t, o.path, sqlconn.WAL())
	teller, err := bank.NewTeller(w.t.Context(), o.app, 2, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = teller.Close() })
	o.teller = teller
	return &o
}

func TestSecondPublisherFencesTheFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := start(t, w.config())
	w.transfer(30)
	p.sync()
	other := w.twin()
	p.sync() // the checkpoint changed nothing
	q := start(t, other.config())
	q.sync()
	other.transfer(10)
	q.sync()

	w.transfer(10)
	err := p.mustEnd(ErrFenced)
	fe, ok := errors.AsType[*FencedError](err)
	if !ok || fe.Claim.Writer != q.Status().Writer || fe.Claim.Epoch != 2 || !strings.Contains(err.Error(), fe.Claim.Host) || !strings.Contains(err.Error(), "epoch 2") {
		t.Fatalf("the error does not name the holder: %v", err)
	}
	if w.spooled() == 0 {
		t.Fatal("the spool is empty")
	}
	if c := other.check(); c.fulls != 1 || len(c.claims) != 2 {
		t.Fatalf("%d full files, %d claims", c.fulls, len(c.claims))
	}
	// Started again, the first one is a stale copy now.
	_ = start(t, w.config()).mustEnd(ErrDiverged)
	other.transfer(1)
	q.sync()
	other.check()
}

func TestStaleCopyIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := start(t, w.config())
	w.transfer(10)
	p.sync()
	other := w.twin()
	w.transfer(10)
	p.sync()

	q := start(t, other.config())
	de, ok := errors.AsType[*DivergedError](q.mustEnd(ErrDiverged))
	if !ok || de.Writer != p.Status().Writer || de.Stream.TXID != p.Status().Acked {
		t.Fatalf("error %+v", de)
	}
	w.transfer(1) // nothing was claimed
	p.sync()
	w.check()

	cfg := other.config()
	cfg.ForceReseed = true
	q = start(t, cfg)
	pos := q.sync()
	if c := other.check(); c.fulls != 2 || c.pos != pos || pos.TXID <= de.Stream.TXID {
		t.Fatalf("%d full files, chain %s, sync %s", c.fulls, c.pos, pos)
	}
	w.transfer(1)
	_ = p.mustEnd(ErrFenced)
}

// TestForcedReseedOverAnOutage: force is obeyed once, and to the end.
func TestForcedReseedOverAnOutage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := start(t, w.config())
	w.transfer(10)
	p.sync()
	other := w.twin()
	q := start(t, other.config())
	q.sync()
	q.mustStop() // its state directory knows TXIDs now
	p.mustStop()
	p = start(t, w.config())
	w.transfer(10)
	p.sync()
	p.mustStop()

	proxy := testenv.Proxy(t, w.node.URL())
	cfg := other.config()
	cfg.JS = testenv.JetStream(t, testenv.Connect(t, "nats://"+proxy.Addr(), nats.ReconnectWait(20*time.Millisecond)))
	cfg.ForceReseed = true
	proxy.CutAfter(1, 4000) // in the middle of joining
	q = start(t, cfg)
	q.sync()
	other.transfer(5)
	q.sync()
	proxy.Reset()
	other.transfer(5)
	q.sync()
	if c := other.check(); c.fulls != 2 {
		t.Fatalf("%d full files", c.fulls)
	}
}

func TestLostStateDirectoryIsAdopted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := start(t, w.config())
	w.transfer(30)
	before := p.sync()
	p.mustStop()
	cfg := w.config()
	cfg.StateDir = filepath.Join(t.TempDir(), "new")
	p = start(t, cfg)
	if pos := p.sync(); pos != before {
		t.Fatalf("adopted at %s, want %s", pos, before)
	}
	w.transfer(5)
	p.sync()
	if c := w.check(); c.fulls != 1 || len(c.claims) != 2 {
		t.Fatalf("%d full files, %d claims", c.fulls, len(c.claims))
	}
}

// TestLostClaimAnswer: an acknowledgement of our own claim that was lost does
// not fence us.
func TestLostClaimAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	proxy := testenv.Proxy(t, w.node.URL())
	cfg := w.config()
	cfg.JS = testenv.JetStream(t, testenv.Connect(t, "nats://"+proxy.Addr(), nats.ReconnectWait(5*time.Millisecond)))
	p := start(t, cfg)
	p.sync()
	for n := range 40 {
		w.empty("purged")              // a new claim is needed
		proxy.CutAfter(1, int64(n)*60) // cuts join at some point
		w.transfer(1)
		p.sync()
	}
	w.check()
}

// publish stores a message on our subjects, as anybody might.
func (w *world) publish(subject string, h nats.Header, data string) {
	w.t.Helper()
	if _, err := w.js.PublishMsg(w.t.Context(), &nats.Msg{Subject: subject, Header: h, Data: []byte(data)}); err != nil {
		w.t.Fatal(err)
	}
}

func foreignClaim(epoch uint64) nats.Header {
	return wire.Claim{Epoch: epoch, Writer: "somebody", Host: "elsewhere", PID: 7, Time: time.Now(), Pos: ltx.NewPos(5, ltx.ChecksumFlag|5)}.Header()
}

// forgetful makes the stream with a short memory of message ids.
func (w *world) forgetful() {
	w.t.Helper()
	if _, err := w.js.CreateStream(w.t.Context(), jetstream.StreamConfig{Name: wire.DefaultStream, Subjects: []string{wire.StreamSubjects},
		Discard: jetstream.DiscardNew, Duplicates: 200 * time.Millisecond}); err != nil {
		w.t.Fatal(err)
	}
}

func TestForeignMessages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.forgetful()
	cfg := w.config()
	cfg.PerTransaction = true
	p := start(t, cfg)
	p.sync()
	p.mustStop()
	p = start(t, cfg) // epoch 2
	w.transfer(3)
	p.sync()
	old := w.message(2) // the first file, of epoch 1

	junk := map[string]func(){
		"garbage":                func() { w.publish(w.db.DataSubject(), nil, "garbage") },
		"garbage claim":          func() { w.publish(w.db.EpochSubject(), nil, "garbage") },
		"another subject":        func() { w.publish("ltx.app.else", nil, "garbage") },
		"claim of an old epoch":  func() { w.publish(w.db.EpochSubject(), foreignClaim(1), "") },
		"replay of an old epoch": func() { w.replay(old) },
	}
	for name, store := range junk {
		store()
		w.transfer(1)
		p.sync()
		if s := p.Status(); s.Error != "" {
			t.Fatalf("after %s: %+v", name, s)
		}
		w.check()
	}
	if s := p.Status(); s.Foreign == 0 || s.Errors != 0 {
		t.Fatalf("nothing foreign was counted, or it was taken for an error: %+v", s)
	}
	for name, store := range junk { // at the end of the stream when it starts
		if name != "claim of an old epoch" { // that one is the last claim already
			store()
		}
	}
	for range 2 { // the second time behind a claim, and nothing else
		p.mustStop()
		p = start(t, cfg)
		p.sync()
	}
	w.transfer(1)
	p.sync()
	if c := w.check(); c.fulls != 1 || c.replays != 0 {
		t.Fatalf("%d full files, %d replays", c.fulls, c.replays)
	}
	// A claim in force is not hidden by an old one behind it.
	w.publish(w.db.EpochSubject(), foreignClaim(p.Status().Epoch+1), "")
	w.publish(w.db.EpochSubject(), foreignClaim(1), "")
	w.transfer(1)
	err := p.mustEnd(ErrFenced)
	if !strings.Contains(err.Error(), "elsewhere") {
		t.Fatalf("the error does not name the holder: %v", err)
	}
}

func TestForeignClaim(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := start(t, w.config())
	p.sync()
	w.publish(w.db.EpochSubject(), foreignClaim(p.Status().Epoch+1), "")
	w.transfer(1)
	err := p.mustEnd(ErrFenced)
	if !strings.Contains(err.Error(), "elsewhere") {
		t.Fatalf("the error does not name the holder: %v", err)
	}
}

// TestFencedInsideALargeFile: its parts in the middle are not fenced, and yet a
// claim that comes between them ends the publisher, with one of them behind it at
// most, and the file unfinished.
func TestFencedInsideALargeFile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *testenv.Config) { c.MaxPayload = 64 << 10 })
	proxy := testenv.Proxy(t, w.node.URL())
	cfg := w.config()
	cfg.JS = testenv.JetStream(t, testenv.Connect(t, "nats://"+proxy.Addr()))
	p := start(t, cfg)
	p.sync()
	epoch := p.Status().Epoch
	proxy.Set(faults.Fault{Latency: 5 * time.Millisecond})
	parts := make(chan *nats.Msg, 1000)
	sub, err := w.connect().ChanSubscribe(w.db.DataSubject(), parts)
	if err != nil {
		t.Fatal(err)
	}
	w.blob(12 << 20)
	for m := range parts {
		meta, err := wire.ParseMeta(m.Header)
		if err == nil && meta.Parts > 100 && meta.Part == 50 {
			break
		}
	}
	w.publish(w.db.EpochSubject(), foreignClaim(epoch+1), "")
	_ = p.mustEnd(ErrFenced)
	if err := sub.Unsubscribe(); err != nil {
		t.Fatal(err)
	}
	s, err := w.js.Stream(t.Context(), wire.DefaultStream)
	if err != nil {
		t.Fatal(err)
	}
	behind := 0
	for seq := s.CachedInfo().State.LastSeq; ; seq-- {
		if w.message(seq).Subject == w.db.EpochSubject() {
			break
		}
		behind++
	}
	if behind > 1 {
		t.Errorf("%d parts behind the claim", behind)
	}
}

// TestReplayOfOurOwn: a copy of a message of the claim in force is not taken
// for the end of the chain for ever.
func TestReplayOfOurOwn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.forgetful()
	cfg := w.config()
	cfg.PerTransaction = true
	p := start(t, cfg)
	p.sync()
	w.transfer(5)
	p.sync()
	w.replay(w.message(4))
	w.transfer(5)
	p.sync()
	w.check()
}

func (w *world) message(seq uint64) *jetstream.RawStreamMsg {
	w.t.Helper()
	s, err := w.js.Stream(w.t.Context(), wire.DefaultStream)
	if err != nil {
		w.t.Fatal(err)
	}
	m, err := s.GetMsg(w.t.Context(), seq)
	if err != nil {
		w.t.Fatal(err)
	}
	return m
}

// replay stores m again, once the server has forgotten its message id.
func (w *world) replay(m *jetstream.RawStreamMsg) {
	w.t.Helper()
	h := nats.Header{}
	for k, v := range m.Header {
		if !strings.HasPrefix(k, "Nats-Expected") {
			h[k] = v
		}
	}
	testenv.Until(w.t, patience, "the server to forget the message id", func() error {
		ack, err := w.js.PublishMsg(w.t.Context(), &nats.Msg{Subject: m.Subject, Header: h, Data: m.Data})
		if err == nil && ack.Duplicate {
			err = fmt.Errorf("a duplicate of %d", ack.Sequence)
		}
		return err
	})
}

// TestDuplicate: an acknowledgement that names another message is none.
func TestDuplicate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := start(t, w.config())
	p.sync()
	r := &runner{Publisher: p.Publisher, seq: 2}
	m := w.message(2)
	h := nats.Header{nats.MsgIdHdr: {m.Header.Get(nats.MsgIdHdr)}}
	if _, err := r.store(t.Context(), &nats.Msg{Subject: m.Subject, Header: h}); !errors.Is(err, errDuplicate) {
		t.Fatalf("store: %v", err)
	}
}

// TestPowerLoss: database and state directory come back older than what was
// published of them. The database is the truth; an old copy of both is not.
func TestPowerLoss(t *testing.T) {
	t.Parallel()
	for name, known := range map[string]time.Duration{"power loss": 0, "old copy": -2 * lossWindow} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			p := start(t, w.config())
			p.sync()
			p.mustStop()
			old := w.twin()
			copyDir(t, StateDir(w.path), StateDir(old.path))
			p = start(t, w.config())
			w.transfer(20)
			p.sync()
			p.mustStop()

			shift := func(p *Publisher) { p.times.skew = known }
			q := start(t, old.config(), shift)
			if known != 0 {
				_ = q.mustEnd(ErrDiverged)
				return
			}
			old.transfer(1)
			q.sync()
			if c := old.check(); c.fulls != 2 || c.replays != 0 {
				t.Fatalf("%d full files, %d replays", c.fulls, c.replays)
			}
		})
	}
}
