package stream

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/superfly/ltx"
	"go.uber.org/goleak"

	"github.com/ltxstream/ltxstream/internal/stream/streamtest"
	"github.com/ltxstream/ltxstream/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func ensure(t testing.TB, js jetstream.JetStream, cfg Config) *Stream {
	t.Helper()
	s, err := Ensure(t.Context(), js, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestEnsureCreatesSafeSettings(t *testing.T) {
	t.Parallel()
	js := streamtest.Connect(t, streamtest.Server(t, nil))
	if _, err := Open(t.Context(), js, ""); !errors.Is(err, ErrNoStream) {
		t.Fatalf("open before: %v", err)
	}
	s := ensure(t, js, Config{Retain: 24 * time.Hour, MaxBytes: 1 << 30})
	c := s.Config()
	if c.Storage != jetstream.FileStorage || c.Discard != jetstream.DiscardNew || c.MaxAge != 24*time.Hour ||
		c.MaxBytes != 1<<30 || !c.AllowDirect || c.Duplicates != DuplicateWindow || c.Compression != jetstream.NoCompression {
		t.Fatalf("settings %+v", c)
	}
	again := ensure(t, js, Config{Retain: 24 * time.Hour})
	if again.Config().MaxBytes != 1<<30 {
		t.Fatal("an existing stream was altered")
	}
	if _, err := Open(t.Context(), js, ""); err != nil {
		t.Fatal(err)
	}
	st, err := s.State(t.Context())
	if err != nil || st.Messages != 0 || st.Created.IsZero() {
		t.Fatalf("state %+v, %v", st, err)
	}
}

func TestEnsureRefusesLossySettings(t *testing.T) {
	t.Parallel()
	js := streamtest.Connect(t, streamtest.Server(t, nil))
	good := Config{Retain: time.Hour}.withDefaults().settings()
	cases := map[string]struct {
		edit   func(*jetstream.StreamConfig)
		retain time.Duration
		want   string // "" is accepted
	}{
		"ours":                {func(*jetstream.StreamConfig) {}, time.Hour, ""},
		"keeps more":          {func(c *jetstream.StreamConfig) { c.MaxAge = 0 }, time.Hour, ""},
		"discard old, no max": {func(c *jetstream.StreamConfig) { c.Discard = jetstream.DiscardOld }, time.Hour, ""},
		"wider subjects":      {func(c *jetstream.StreamConfig) { c.Subjects = []string{"ltx.>", "other"} }, time.Hour, ""},
		"discard old":         {func(c *jetstream.StreamConfig) { c.Discard, c.MaxBytes = jetstream.DiscardOld, 1<<20 }, time.Hour, "discards old"},
		"memory":              {func(c *jetstream.StreamConfig) { c.Storage = jetstream.MemoryStorage }, time.Hour, "storage"},
		"max msgs":            {func(c *jetstream.StreamConfig) { c.MaxMsgs = 10 }, time.Hour, "max_msgs"},
		"max per subject":     {func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 5 }, time.Hour, "max_msgs_per_subject"},
		"shorter age":         {func(c *jetstream.StreamConfig) { c.MaxAge = time.Minute }, time.Hour, "max_age"},
		"an age, asked none":  {func(*jetstream.StreamConfig) {}, 0, "max_age"},
		"interest":            {func(c *jetstream.StreamConfig) { c.Retention = jetstream.InterestPolicy }, time.Hour, "retention"},
		"subjects":            {func(c *jetstream.StreamConfig) { c.Subjects = []string{"ltx.other.>"} }, time.Hour, "subjects"},
		"no ack":              {func(c *jetstream.StreamConfig) { c.NoAck = true }, time.Hour, "no_ack"},
		"async":               {func(c *jetstream.StreamConfig) { c.PersistMode = jetstream.AsyncPersistMode }, time.Hour, "persist_mode"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			cfg := good
			c.edit(&cfg)
			streamtest.Eventually(t, "the stream", func() bool { // the server removes the one before in its own time
				_, err := js.CreateStream(t.Context(), cfg)
				return err == nil
			})
			defer js.DeleteStream(t.Context(), cfg.Name)
			_, err := Ensure(t.Context(), js, Config{Retain: c.retain})
			lossy, ok := errors.AsType[*LossyError](err)
			if ok != (c.want != "") || ok && !strings.Contains(strings.Join(lossy.Settings, ";"), c.want) {
				t.Fatalf("got %v, want %q named", err, c.want)
			}
			if ok && Classify(err) != Permanent {
				t.Fatalf("%v is %s", err, Classify(err))
			}
			if _, err := Ensure(t.Context(), js, Config{Retain: c.retain, AcceptLossy: true}); err != nil {
				t.Fatalf("accepted: %v", err)
			}
		})
	}
}

func TestSubjectsOfOneDatabase(t *testing.T) {
	t.Parallel()
	for have, covered := range map[string]bool{"ltx.>": true, "ltx.app.>": true, "ltx.*.>": true, ">": true, "ltx.app.*": false, "ltx.b.>": false, "ltx.app": false} {
		c := Config{}.settings()
		c.Subjects = []string{have}
		if got := len(lossy(c, Config{DB: "app"})) == 0; got != covered {
			t.Errorf("%s covers ltx.app.>: %t", have, got)
		}
	}
}

func TestNoJetStream(t *testing.T) {
	t.Parallel()
	js := streamtest.Connect(t, streamtest.Server(t, func(o *server.Options) { o.JetStream = false }))
	for name, open := range map[string]func() error{
		"ensure": func() error { _, err := Ensure(t.Context(), js, Config{}); return err },
		"open":   func() error { _, err := Open(t.Context(), js, ""); return err },
	} {
		if err := open(); !errors.Is(err, ErrNoJetStream) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPermissionMissing(t *testing.T) {
	t.Parallel()
	srv := streamtest.Server(t, func(o *server.Options) {
		o.Users = []*server.User{{Username: "u", Password: "p", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Allow: []string{"$JS.API.STREAM.INFO.LTX"}},
		}}, {Username: "none", Password: "p", Permissions: &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{">"}}}}}
	})
	for user, want := range map[string]string{"u": "STREAM.CREATE", "none": "STREAM.INFO"} {
		js := streamtest.Connect(t, srv, nats.UserInfo(user, "p"))
		var err error
		for try := 0; try < 5 && !errors.Is(err, ErrPermission); try++ { // the denial may come late
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, err = Ensure(ctx, js, Config{})
			cancel()
		}
		if !errors.Is(err, ErrPermission) || !strings.Contains(err.Error(), want) || Classify(err) != Permanent {
			t.Errorf("user %s: %v (%s)", user, err, Classify(err))
		}
	}
}

func TestHead(t *testing.T) {
	t.Parallel()
	js := streamtest.Connect(t, streamtest.Server(t, nil))
	s := ensure(t, js, Config{})
	if h, err := s.Head(t.Context(), "app"); err != nil || h.LastSeq != 0 || h.Data != nil || h.Claim != nil {
		t.Fatalf("empty: %+v, %v", h, err)
	}
	c := streamtest.NewChain("app", 1)
	claimSeq := c.Claim(t, js)
	if h, err := s.Head(t.Context(), "app"); err != nil || h.LastSeq != claimSeq || h.Data != nil || h.Claim == nil || h.ClaimSeq != claimSeq {
		t.Fatalf("claim only: %+v, %v", h, err)
	}
	c.Publish(t, js, c.Full(t, 5), 0)
	other := streamtest.NewChain("other", 2)
	other.Claim(t, js)
	f := c.Step(t, 2)
	seq := c.Publish(t, js, f, 300)
	other.Publish(t, js, other.Full(t, 1), 0)
	h, err := s.Head(t.Context(), "app")
	if err != nil || h.LastSeq != seq || h.Data.Seq != seq || h.Data.Meta.Max != f.Meta.Max || h.Data.Meta.Parts < 2 ||
		h.ClaimSeq != claimSeq || h.Claim.Writer != c.Writer || h.Foreign != 0 {
		t.Fatalf("%+v, %v", h, err)
	}
	m, err := s.Get(t.Context(), seq)
	if err != nil || m.Meta != h.Data.Meta || string(m.Data) != string(h.Data.Data) {
		t.Fatalf("get: %+v, %v", m, err)
	}
	if _, err := s.Get(t.Context(), seq+100); !errors.Is(err, ErrNotFound) || Classify(err) != NotFound {
		t.Fatalf("absent: %v", err)
	}
}

func TestHeadStepsOverForeignMessages(t *testing.T) {
	t.Parallel()
	js := streamtest.Connect(t, streamtest.Server(t, nil))
	s := ensure(t, js, Config{})
	c, other := streamtest.NewChain("app", 1), streamtest.NewChain("other", 2)
	claimSeq := c.Claim(t, js)
	dataSeq := c.Publish(t, js, c.Full(t, 5), 0)
	var last uint64
	for i := range 37 {
		last = c.Inject(t, js, &nats.Msg{Subject: []string{"ltx.app.0", "ltx.app.epoch", "ltx.app.x"}[i%3], Data: []byte("hello")})
		other.Claim(t, js)
	}
	// A valid message of another database on our subject is foreign too.
	m := other.Messages(other.Full(t, 2), 1<<20)[0]
	m.Subject = "ltx.app.0"
	last = max(last, c.Inject(t, js, m))
	h, err := s.Head(t.Context(), "app")
	if err != nil || h.LastSeq != last || h.Data == nil || h.Data.Seq != dataSeq || h.ClaimSeq != claimSeq || h.Foreign == 0 {
		t.Fatalf("%+v, %v", h, err)
	}
}

func TestPrevAgainstAllMessages(t *testing.T) {
	t.Parallel()
	const seed = 42
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	js := streamtest.Connect(t, streamtest.Server(t, nil))
	s := ensure(t, js, Config{})
	var subjects []string
	for range 120 {
		subject := []string{"ltx.app.0", "ltx.app.epoch", "ltx.other.0", "ltx.other.0", "ltx.other.0"}[rnd.IntN(5)]
		if _, err := js.Publish(t.Context(), subject, nil); err != nil {
			t.Fatal(err)
		}
		subjects = append(subjects, subject)
	}
	for _, subject := range []string{"ltx.app.0", "ltx.app.epoch", "ltx.none"} {
		var want uint64
		for before := uint64(1); before <= uint64(len(subjects))+1; before++ {
			r, err := s.prev(t.Context(), subject, before)
			if err != nil || seqOf(r) != want {
				t.Fatalf("last %s before %d: %d, %v; want %d", subject, before, seqOf(r), err, want)
			}
			if before <= uint64(len(subjects)) && subjects[before-1] == subject {
				want = before
			}
		}
	}
}

func TestSeqOf(t *testing.T) {
	t.Parallel()
	js := streamtest.Connect(t, streamtest.Server(t, nil))
	s := ensure(t, js, Config{})
	c, other := streamtest.NewChain("app", 1), streamtest.NewChain("other", 2)
	if m, err := s.Find(t.Context(), "app", 4); m != nil || err != nil {
		t.Fatalf("empty: %+v, %v", m, err)
	}
	first := map[ltx.TXID]uint64{}
	other.Publish(t, js, other.Full(t, 4), 0)
	for i := range 150 {
		f := c.Full
		if i > 0 {
			f = func(t testing.TB, _ int) streamtest.File { return c.Step(t, 2) }
		}
		file := f(t, 6)
		parts := []int{0, 200}[min(i%7/6, 1)] // every seventh in parts
		last := c.Publish(t, js, file, parts)
		first[file.Meta.Min] = last - uint64(len(c.Messages(file, max(parts, 1<<20*(1-min(parts, 1)))))-1)
		if i%5 == 0 {
			c.Inject(t, js, &nats.Msg{Subject: "ltx.app.0", Data: []byte("x")})
		}
		for range i % 4 * (i / 40) { // unevenly
			other.Publish(t, js, other.Step(t, 1), 0)
		}
	}
	check := func(from ltx.TXID) {
		t.Helper()
		for txid := ltx.TXID(1); txid <= 150; txid++ {
			seq, err := s.SeqOf(t.Context(), "app", txid)
			if txid < from {
				if !errors.Is(err, ErrNotFound) {
					t.Fatalf("trimmed TXID %s: %d, %v", txid, seq, err)
				}
			} else if err != nil || seq != first[txid] {
				t.Fatalf("TXID %s: %d, %v; want %d", txid, seq, err, first[txid])
			}
		}
		if _, err := s.SeqOf(t.Context(), "app", 151); !errors.Is(err, ErrNotFound) {
			t.Fatalf("beyond: %v", err)
		}
	}
	check(1)
	str, err := js.Stream(t.Context(), "LTX")
	if err != nil {
		t.Fatal(err)
	}
	if err := str.Purge(t.Context(), jetstream.WithPurgeSequence(first[60])); err != nil {
		t.Fatal(err)
	}
	check(60)
	if m, err := s.Find(t.Context(), "app", 3); err != nil || m.Meta.Min != 60 {
		t.Fatalf("first left: %+v, %v", m, err)
	}
}

func TestSeqOfReadsFewMessages(t *testing.T) {
	t.Parallel()
	js := streamtest.Connect(t, streamtest.Server(t, nil))
	s := ensure(t, js, Config{})
	c := streamtest.NewChain("app", 1)
	c.Publish(t, js, c.Full(t, 2), 0)
	for range 600 {
		c.Publish(t, js, c.Step(t, 1), 0)
	}
	sub, err := js.Conn().SubscribeSync("$JS.API.STREAM.MSG.GET.>")
	if err != nil {
		t.Fatal(err)
	}
	if seq, err := s.SeqOf(t.Context(), "app", 333); err != nil || seq != 333 {
		t.Fatalf("%d, %v", seq, err)
	}
	if err := js.Conn().Flush(); err != nil {
		t.Fatal(err)
	}
	if n, _, _ := sub.Pending(); n == 0 || n > 4 {
		t.Fatalf("%d reads, want 1 to 4", n)
	}
}

func TestAPIPrefix(t *testing.T) {
	t.Parallel()
	for want, o := range map[string]jetstream.JetStreamOptions{
		"$JS.API.": {}, "$JS.hub.API.": {Domain: "hub"}, "x.y.": {APIPrefix: "x.y"},
	} {
		if got := apiPrefix(o); got != want {
			t.Errorf("%+v: %s, want %s", o, got, want)
		}
	}
	js := streamtest.Connect(t, streamtest.Server(t, func(o *server.Options) { o.JetStreamDomain = "hub" }))
	hub, err := jetstream.NewWithDomain(js.Conn(), "hub")
	if err != nil {
		t.Fatal(err)
	}
	s := ensure(t, hub, Config{})
	c := streamtest.NewChain("app", 1)
	seq := c.Publish(t, js, c.Full(t, 2), 0)
	if h, err := s.Head(t.Context(), "app"); err != nil || h.LastSeq != seq {
		t.Fatalf("through a domain: %+v, %v", h, err)
	}
}

func TestClassifyRealErrors(t *testing.T) {
	t.Parallel()
	js := streamtest.Connect(t, streamtest.Server(t, nil))
	s := ensure(t, js, Config{MaxBytes: 4000})
	c := streamtest.NewChain("app", 1)
	c.Publish(t, js, c.Full(t, 2), 0)
	publish := func(size int, opts ...jetstream.PublishOpt) error {
		_, err := js.PublishMsg(t.Context(), &nats.Msg{Subject: "ltx.app.0", Data: make([]byte, size)}, opts...)
		return err
	}
	if err := publish(1, jetstream.WithExpectLastSequenceForSubject(0, "ltx.app.>")); Classify(err) != WrongSequence {
		t.Errorf("%v is %s", err, Classify(err))
	}
	if err := publish(8000); Classify(err) != Full {
		t.Errorf("%v is %s", err, Classify(err))
	}
	if err := publish(2 << 20); Classify(err) != Permanent {
		t.Errorf("%v is %s", err, Classify(err))
	}
	if err := js.DeleteStream(t.Context(), "LTX"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Head(t.Context(), "app"); Classify(err) != NoStream {
		t.Errorf("%v is %s", err, Classify(err))
	}
	for want, err := range map[Kind]error{None: nil, Transient: nats.ErrTimeout, Canceled: fmt.Errorf("x: %w", context.Canceled)} {
		if Classify(err) != want {
			t.Errorf("%v is %s, want %s", err, Classify(err), want)
		}
	}
	if Classify(nats.ErrNoResponders) != Transient || Classify(wire.ErrInvalidName) != Transient {
		t.Error("unknown errors must be tried again")
	}
}
